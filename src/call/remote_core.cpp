// remote_core.cpp - the path of a call: to a child, and back to its caller.
// Runs in: parent.  Licence: see COPYING.
#include <evparallel/run.hpp>

#include "call/remote_core.hpp"

#include "base/negative.hpp"
#include "base/no_memory.hpp"
#include "system/failpoint.hpp"
#include "codec/remote_error.hpp"

#include <stdexcept>

namespace evparallel {

namespace detail {

RemoteCore::RemoteCore(const std::shared_ptr<Loop>& loop, std::shared_ptr<const ChildSpec> pattern,
                       ChildTable children)
    : loop_(loop), pattern_(std::move(pattern)), children_(children) {
  attach(*loop_);
}

void RemoteCore::check_open() const {
  if (!closed_ && loop_->alive()) return;
  if (closed_) throw std::logic_error("evparallel: a call on a remote function after its close()");
  loop_->check_at_home();
  throw std::logic_error("evparallel: a call on a remote function whose Reactor is destroyed");
}

void RemoteCore::began() {
  if (pending_++ == 0) loop_->hold();
}
void RemoteCore::ended() {
  if (--pending_ == 0 && loop_->alive()) loop_->release();
}

// ---- to the child ----

void RemoteCore::spawn() {
  auto child = std::make_unique<RemoteChild>(*this);
  child->handle =
      ChildHandle::spawn(pattern_->replicas->next(loop_), loop_, *pattern_->task, pattern_->options,
                         ChildHandle::Use::remote_function, child.get());
  if (current_) dying_->push_back(std::move(current_));
  current_ = std::move(child);
}

std::uint64_t RemoteCore::call(Writer& argument, Answer&& answer) {
  const std::chrono::milliseconds limit = pattern_->options->deadline;
  return call(argument, std::move(answer), limit > limit.zero() ? deadline_in(limit) : no_deadline);
}

std::uint64_t RemoteCore::call(Writer& argument, Answer&& answer, std::int64_t deadline) {
  check_open();
  const std::uint64_t id = next_id_++;
  PendingCall pending;
  pending.answer = std::move(answer);
  pending.deadline = deadline;
  try {
    place(id, pending, argument);
    began();
  } catch (const Error& error) {
    fail_later(error, std::move(pending.answer));
  }
  return id;
}

// The end of a dead child whose calls may have to be made again must be handled first.  The new
// call is held until then, so that calls keep their order.
// Fails: Error{spawn_failed}, Error{too_large}, and the call was not taken.
void RemoteCore::place(std::uint64_t id, PendingCall& pending, Writer& argument) {
  const bool usable = current_ && current_->handle->pipe()->usable();
  pending.held = !usable && current_ &&
                 (single() || current_->kill_requested() || pattern_->options->retries > 0 ||
                  current_->handle->unused());
  if (!usable && !pending.held) spawn();
  RemoteChild& child = *current_;
  PipeCore& pipe = *child.handle->pipe();
  pending.offset = pipe.bytes_put();
  if (!pending.held) {
    if (pending.deadline != no_deadline) tell(child, id, pending, pending.deadline);
    try {
      pipe.put(FrameKind::call, id, argument, PipeCore::FlushPolicy::with_the_turn,
               Channel::Message::kept);
    } catch (...) {
      erase(std::exchange(pending.note, nullptr));
      throw;
    }
  }
  const std::int64_t deadline = pending.deadline;
  // With `single` the derived class makes the calls again.
  PendingCall& added = child.calls.add(id, std::move(pending), single() ? nullptr : &argument);
  if (deadline != no_deadline) keep_deadline(id, added, deadline);
}

std::uint64_t RemoteCore::refuse(const Error& error, Answer answer) {
  check_open();
  fail_later(error, std::move(answer));
  return next_id_++;
}

// Not from inside the call: the callback runs later, from the loop.
void RemoteCore::fail_later(const Error& error, Answer answer) {
  began();
  complete_later(error, std::move(answer));
}

// For a call that is counted in `pending_`.
void RemoteCore::complete_later(const Error& error, Answer answer) {
  loop_->defer([self = shared_from_this(), error, answer = std::move(answer)]() mutable {
    self->ended();  // first: a callback may throw
    answer(nullptr, &error);
  });
}

// ---- from the child ----

namespace {

void answer_error(Answer& answer, const Error& error, Delivery delivery) {
  const Error told = error.with_delivery(delivery);
  answer(nullptr, &told);
}

void finish(Frame& frame, Answer& answer, const ChildHandle& child) {
  if (frame.skipped == Frame::Skipped::no_memory)
    return answer_error(answer, no_memory("for the answer"), Delivery::started);
  if (frame.skipped == Frame::Skipped::too_large)
    return answer_error(
        answer, Error(Errc::too_large, "too large: the answer is above the limit of the parent"),
        Delivery::started);
  Reader in = frame.reader();
  if (frame.kind == FrameKind::value) return answer(&in, nullptr);
  const Error error = child.explained(error_in(in));
  // A child that refused to begin the call has set another delivery.
  answer_error(answer, error,
               error.delivery() == Delivery::sent ? Delivery::sent : Delivery::started);
}

}  // namespace

void RemoteCore::answered(RemoteChild& child, Frame& frame) {
  fault_at(Hop::finish);
  const auto keep = shared_from_this();
  if (frame.id == 0) return on_child_ready();
  PendingCall pending = child.calls.take(frame.id);
  if (!pending.answer) return forget_given_up(child, frame.id);  // it was given up
  forget_deadline(frame.id, pending);
  erase(pending.note);
  ended();  // first: a callback may throw
  finish(frame, pending.answer, *child.handle);
}

// ---- the end of the Remote ----

void RemoteCore::close() {
  closed_ = true;
  if (current_) current_->handle->pipe()->close();
}

void RemoteCore::close_in_time() {
  close();
  if (current_) current_->handle->release();
}

// Calls in progress fail with `cancelled`, from the loop.
void RemoteCore::drop() noexcept {
  if (std::exchange(dropped_, true)) return;
  closed_ = true;
  stop_clock();
  for (const auto& child : take_all()) drop_child(*child);
}

// Removes all its children.
std::vector<std::unique_ptr<RemoteChild>> RemoteCore::take_all() noexcept {
  std::vector<std::unique_ptr<RemoteChild>> all;
  if (dying_.peek()) all.swap(*dying_);
  if (current_) all.push_back(std::move(current_));
  return all;
}

void RemoteCore::drop_child(RemoteChild& child) noexcept {
  for (auto& [id, pending, argument] : child.calls.take_all()) {
    erase(pending.note);
    if (!loop_->alive()) continue;
    loop_->defer([loop = loop_, answer = std::move(pending.answer),
                  error = Error(Errc::cancelled, "cancelled: the remote function was dropped")
                              .with_delivery(child.delivery(id, pending))]() mutable {
      loop->release();  // first: a callback may throw
      answer(nullptr, &error);
    });
    loop_->hold();
    ended();
  }
  erase_cancel_entries(child);
  child.handle->cut();
}

void RemoteCore::on_loop_destroyed() noexcept {
  stop_clock();
  // The callbacks are destroyed without a call; they may own handles whose destructors come back
  // here.
  const std::vector<std::unique_ptr<RemoteChild>> all = take_all();
  for (const auto& child : all) abort_silently(*child);
  pending_ = 0;
}

void RemoteCore::abort_silently(RemoteChild& child) noexcept {
  for (const auto& kept : child.calls.take_all()) erase(kept.call.note);
  erase_cancel_entries(child);
  child.handle->cut();
}

// ---- one child ----

RemoteChild::RemoteChild(RemoteCore& remote) noexcept
    : calls(Pooled<PendingCalls::Waiting>(remote.loop().own<ObjectPool<PendingCalls::Waiting>>())),
      remote_(remote) {}

void RemoteChild::on_started(pid_t) {
  remote_.child_started(*this);
}

void RemoteChild::on_frame(Frame& frame) {
  if (frame.kind == FrameKind::value || frame.kind == FrameKind::error)
    remote_.answered(*this, frame);
}

void RemoteChild::on_ended(const ExitStatus& status, const Error& error) {
  remote_.child_ended(*this, status, error);
}

// ---- interface of a Remote and a Call ----

namespace {

bool same_spec(const Task& one, const Task& other) {
  return one.entry == other.entry && one.function == other.function &&
         one.callable == other.callable && one.replies_later == other.replies_later &&
         one.more == other.more;
}

// The spec of the last Remote on a loop: a program that makes thousands makes most of them alike.
struct LastPattern {
  std::weak_ptr<const ChildSpec> pattern;
};

std::shared_ptr<const ChildSpec> pattern_of(Loop& loop, const Task& task, const Options& options) {
  std::shared_ptr<Replicas> replicas = Replicas::choose(options.snapshot);
  LastPattern& last = loop.own<LastPattern>();
  std::shared_ptr<const ChildSpec> pattern = last.pattern.lock();
  if (pattern && pattern->replicas == replicas && same_spec(*pattern->task, task) &&
      same_spec(*pattern->options, options))
    return pattern;
  pattern = std::make_shared<const ChildSpec>(
      ChildSpec{std::move(replicas), std::make_shared<const Task>(task), kept(options)});
  last.pattern = pattern;
  return pattern;
}

}  // namespace

std::shared_ptr<RemoteCore> remote_start(Reactor& reactor, const Task& task,
                                         const Options& options) {
  fault_at(Hop::run);
  const std::shared_ptr<Loop>& loop = reactor.loop();
  auto core = std::make_shared<RemoteCore>(loop, pattern_of(*loop, task, options));
  core->spawn();
  return core;
}

Call remote_call(RemoteCore& core, Writer& argument, Answer&& answer) {
  return Call(core.weak_from_this(), core.call(argument, std::move(answer)));
}
Call remote_refuse(RemoteCore& core, const Error& error, Answer answer) {
  return Call(core.weak_from_this(), core.refuse(error, std::move(answer)));
}
Loop& remote_loop(RemoteCore& core) noexcept {
  return core.loop();
}
pid_t remote_pid(const RemoteCore& core) noexcept {
  return core.pid();
}
std::size_t remote_pending(const RemoteCore& core) noexcept {
  return core.pending();
}
void remote_close(RemoteCore& core) {
  core.close();
}
void remote_drop(RemoteCore& core) noexcept {
  core.drop();
}
void call_cancel(const std::weak_ptr<CallTarget>& target, std::uint64_t id) {
  if (const auto living = target.lock()) living->cancel(id);
}
void call_deadline(const std::weak_ptr<CallTarget>& target, std::uint64_t id,
                   std::chrono::nanoseconds time) {
  refuse_negative("Call::set_deadline", time);
  if (const auto living = target.lock()) living->set_deadline(id, time);
}

}  // namespace detail

}  // namespace evparallel
