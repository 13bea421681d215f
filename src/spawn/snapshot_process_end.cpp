// snapshot_process_end.cpp - the end of a snapshot process: abandoned, stopped, or lost; then
// reaped.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/snapshot_process.hpp"

#include <sys/wait.h>

#include <vector>

namespace evparallel::detail {

namespace {

// A snapshot that ends by itself, with its last child, and is still to be reaped.  Its control
// socket stays open: closing it would say that the program has ended.
struct Abandoned {
  pid_t pid;
  ControlClient client;
};

// Never destroyed, because objects that are destroyed last may use it.
std::vector<Abandoned>& abandoned() {
  static auto* all = new std::vector<Abandoned>;
  return *all;
}

}  // namespace

// ---- abandoned ----

void SnapshotProcess::reap_abandoned() noexcept {
  std::vector<Abandoned>& all = abandoned();
  Reaped how;
  for (std::size_t i = all.size(); i-- > 0;)
    if (ended(all[i].pid, how)) all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
}

SnapshotShared::~SnapshotShared() {
  if (cancel_table && home.is_here() && role() == Role::parent) CancelTable::unmap(cancel_table);
}

SnapshotProcess::~SnapshotProcess() {
  if (!home_.is_here() || role() != Role::parent) return;
  if (slots_) unmap_slots(slots_);
  if (pid_ == 0 || reaped_) return;
  drop_spares();
  // If a child may live on, the socket stays open: its end would end the child.
  if (living_.only_spares() || !client_.ask(request_of(RequestKind::stop_without_reports)) ||
      !client_.idle())
    client_.close();
  abandoned().push_back({pid_, std::move(client_)});
  reap_abandoned();
}

bool SnapshotProcess::alive() const noexcept {
  return home_.is_here() && (state_ == State::connected || state_ == State::unconnected);
}

bool SnapshotProcess::can_be_asked() const noexcept {
  return alive() && !(client_ && has_hung_up(client_.fd()));
}

void SnapshotProcess::stop() noexcept {
  on_lost_ = nullptr;
  if (!home_.is_here() || state_ != State::connected || role() != Role::parent) return;
  drop_spares();
  ask(request_of(RequestKind::stop));
  state_ = State::stopped;
}

void SnapshotProcess::on_loop_destroyed() noexcept {
  const auto keep = std::move(self_);
  read_event_.unset();
  write_event_.unset();
  reap_event_.unset();
  refill_event_.unset();
  starts_event_.unset();
  starts_at_ = never;
  holds_loop_ = false;
  loop_.reset();
  living_.forget_listeners();
}

// ---- lost ----

// The control socket has ended: no report will say how the living children end.  A child that was
// only refused may connect again.
void SnapshotProcess::lost() {
  read_event_.remove();
  write_event_.remove();
  client_.close();
  const Error why = why_lost();
  if (role() == Role::child)
    state_ = State::unconnected;
  else if (state_ != State::stopped)
    state_ = State::lost;
  for (const std::uint64_t id : living_.ids()) {
    const SpawnRecord child = *living_.find(id);
    if (child.pid != 0 && role() == Role::parent) survivors_.push_back(child);
    ExitStatus status;
    status.pid = child.pid;
    status.cause = Cause::snapshot_lost;
    if (child.pid != 0)
      exit_report(id, {status, std::nullopt});
    else if (child.asked && !refused_)
      exit_report(id, {status, why});  // forked or not: its task may have run
    else
      exit_report(id, {std::nullopt, why});
  }
  if (role() != Role::parent) return;
  holds_loop_ = (state_ == State::lost && on_lost_) || !survivors_.empty();
  if (holds_loop_) loop_->hold();
  reap();
}

Error SnapshotProcess::why_lost() const {
  if (refused_)
    return Error(Errc::overloaded,
                 "overloaded: too many children of this snapshot have children of their own");
  return state_ == State::stopped ? was_stopped() : is_dead();
}

// The socket of a dying process ends a little before the process can be waited for.
void SnapshotProcess::reap() {
  Reaped how;
  if (!reaped_ && !ended(pid_, how)) return reap_event_.add_in(std::chrono::milliseconds(1));
  kill_survivors();
  const auto keep = std::move(self_);
  if (std::exchange(holds_loop_, false)) loop_->release();
  if (!std::exchange(reaped_, true) && state_ == State::lost) loss_ = loss_of(how);
  report_loss();
}

// The kernel kills the children with the snapshot, except those whose ids have changed.  This runs
// only after the snapshot is reaped: a snapshot that has only lost this process ends them itself,
// and lets them flush.
void SnapshotProcess::kill_survivors() noexcept {
  for (const SpawnRecord& child : survivors_) kill_born_by(child.pid, child.born_before);
  survivors_ = {};
}

ExitStatus SnapshotProcess::loss_of(const Reaped& how) {
  ExitStatus status;
  status.pid = how.pid;
  status.wait_status = how.wait_status;
  status.usage = how.usage;
  status.cause = how.wait_status == 0 ? Cause::normal : Cause::error;
  if (WIFSIGNALED(how.wait_status)) status.cause = Cause::crash;
  const bool killed = status.signalled() && status.signal() == SIGKILL;
  if (killed && shared_->out_of_memory.consume_kill()) status.cause = Cause::out_of_memory;
  return status;
}

void SnapshotProcess::report_loss() {
  if (!loss_ || !on_lost_) return;
  const ExitStatus status = *std::exchange(loss_, std::nullopt);
  Callback<void(const ExitStatus&)> callback = std::exchange(on_lost_, nullptr);
  loop_->call([&] { callback(status); });
}

void SnapshotProcess::set_on_lost(Callback<void(const ExitStatus&)> callback) {
  if (state_ == State::stopped) return;
  on_lost_ = std::move(callback);
  if (loss_ && loop_ && loop_->alive())
    loop_->defer([self = shared_from_this()] { self->report_loss(); });
}

}  // namespace evparallel::detail
