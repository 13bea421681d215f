// child_handle.cpp - from the request for a child to its last word.
// Licence: see COPYING.
#include "child_handle.hpp"

#include "task_frame.hpp"

#include <cstring>

namespace evparallel {

using detail::PipeCore;

namespace {

Error error_of(const ExitStatus& status) {
  const Errc code = status.cause == Cause::snapshot_lost ? Errc::snapshot_lost
                    : status.signalled()                 ? Errc::child_killed
                                                         : Errc::child_exited;
  return Error(code, std::string(to_string(code)) + ": " + status.describe()).with_exit(status);
}

}  // namespace

ChildHandle::ChildHandle(std::shared_ptr<SnapshotEntry> entry, const Options& options,
                         ChildOwner* owner)
    : entry_(std::move(entry)), options_(options), owner_(owner) {
  options_.snapshot = nullptr;  // it need not live longer than the call
}

ChildHandle::~ChildHandle() {
  if (id_ != 0) entry_->forget(id_);
}

std::shared_ptr<ChildHandle> ChildHandle::spawn(const std::shared_ptr<SnapshotEntry>& entry,
                                                const std::shared_ptr<Loop>& loop,
                                                const detail::Task& task, const Options& options,
                                                ChildOwner* owner) {
  Descriptor ours;
  Descriptor theirs;
  if (const int error = make_pair(PairKind::stream, ours, theirs))
    throw Error(Errc::spawn_failed,
                std::string("spawn failed: no socket pair for a child: ") + std::strerror(error))
        .with_os_error(error);
  std::shared_ptr<ChildHandle> child(new ChildHandle(entry, options, owner));
  child->id_ = entry->spawn(loop, std::move(theirs), child.get());
  child->pipe_ =
      std::make_shared<PipeCore>(loop, Channel(std::move(ours), options.max_message),
                                 options.high_water, PipeCore::LastWord::comes, child.get());
  child->write_task(task);
  child->pipe_->start();
  return child;
}

void ChildHandle::write_task(const detail::Task& task) {
  Writer frame;
  write_task_frame(frame, task, options_.max_message, options_.high_water);
  pipe_->put(FrameKind::task, 0, frame);
}

void ChildHandle::kill(int signum) {
  if (!ended_) entry_->kill(id_, slot_, signum);
}

void ChildHandle::terminate(std::chrono::milliseconds grace) {
  if (!ended_) entry_->terminate(id_, slot_, grace);
}

Delivery ChildHandle::delivery(std::uint64_t call, std::uint64_t offset) const noexcept {
  const bool no_child = status_.cause == Cause::not_started;
  if (no_child || pipe_->bytes_written() <= offset) return Delivery::not_sent;
  const Slot* slot = ended_ ? nullptr : entry_->slot(slot_);
  const std::uint64_t started =
      slot ? slot->started.load(std::memory_order_acquire) : last_started_;
  return call <= started ? Delivery::started : Delivery::sent;
}

void ChildHandle::let_go() {
  owner_ = nullptr;
  entry_->forget(std::exchange(id_, 0));
}

void ChildHandle::drop() {
  if (!ended_) entry_->release(id_, slot_, options_.linger, options_.grace);
  let_go();
  pipe_->abandon();
}

void ChildHandle::cut() {
  if (!ended_) entry_->release(id_, slot_, options_.linger, options_.grace);
  let_go();
  pipe_->shut();
}

void ChildHandle::on_spawned(pid_t pid, std::uint32_t slot) {
  pid_ = pid;
  slot_ = slot;
  if (owner_) owner_->on_started(pid);
}

// The slot is read before the snapshot hears that we know of the end and gives it to somebody else.
void ChildHandle::on_last_word(const LastWord& word) {
  const auto keep = shared_from_this();
  if (const Slot* slot = entry_->slot(slot_))
    last_started_ = slot->started.load(std::memory_order_acquire);
  ended_ = true;
  if (word.status) {
    status_ = *word.status;
    error_ = error_of(status_);
  } else {
    status_.cause = Cause::not_started;
    error_ = word.failure;
  }
  pipe_->conclude(*error_);
}

void ChildHandle::on_task_error(const Error& error) {
  if (owner_) owner_->on_task_error(error);
}

void ChildHandle::on_frame(Frame& frame) {
  if (owner_) owner_->on_frame(frame);
}

// Its socket has ended, and it has not, as far as we know: it gets its time to end.
void ChildHandle::on_broken() {
  entry_->release(id_, slot_, options_.linger, options_.grace);
}

void ChildHandle::on_over() {
  const auto keep = shared_from_this();
  if (ChildOwner* owner = std::exchange(owner_, nullptr)) owner->on_ended(status_, *error_);
}

}  // namespace evparallel
