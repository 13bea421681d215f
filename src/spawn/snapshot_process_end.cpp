// snapshot_process_end.cpp - the end of a snapshot process: abandoned, stopped, or lost; then
// reaped.
// Runs in: parent.  Licence: see COPYING.
#include "base/names.hpp"
#include "system/process_lock.hpp"
#include "spawn/snapshot_process.hpp"

#include <sys/wait.h>

#include <atomic>
#include <new>
#include <vector>

namespace evparallel::detail {

namespace {

// A snapshot that ends by itself, with its last child, and is still to be reaped.  Its control
// socket stays open: closing it would say that the program has ended.
struct Abandoned {
  std::shared_ptr<Rendezvous> process;  // its pid is 0: it is asked for, and not reported yet
  ControlClient client;
  bool joined;  // its Reactor has left: the process closes the socket after its last child
};

// True once it has ended, or it is known that it never was forked.
bool is_over(Abandoned& one) {
  if (one.joined) return has_hung_up(one.client.fd());
  Rendezvous& process = *one.process;
  Report report{};
  for (IoResult flow;
       process.pid() == 0 && (flow = one.client.take(report)) != IoResult::would_block;) {
    if (flow == IoResult::closed) return true;
    const bool of_it =
        report.kind == ReportKind::begun || report.kind == ReportKind::replica_forked;
    if (of_it && report.pid > 0) process.set_pid(report.pid);
  }
  Reaped how;
  return process.pid() != 0 && process.has_ended(how);
}

std::atomic<std::size_t> processes_that_exist{0};

// Guarded by the ProcessLock.  Never destroyed, because objects that are destroyed last may use it.
std::vector<Abandoned>& abandoned() {
  static auto* all = new std::vector<Abandoned>;
  return *all;
}

}  // namespace

// ---- abandoned ----

// Each process may have to be kept there when it is destroyed, and then there may be no memory.
void SnapshotProcess::reserve_abandoned() {
  const ProcessLock lock;
  std::vector<Abandoned>& all = abandoned();
  all.reserve(all.size() + ++processes_that_exist);
}

void SnapshotProcess::reap_abandoned() noexcept {
  const ProcessLock lock;
  std::vector<Abandoned>& all = abandoned();
  for (std::size_t i = all.size(); i-- > 0;)
    if (is_over(all[i])) all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
}

SnapshotShared::~SnapshotShared() {
  if (cancel_table && !origin && home.is_here() && role() == Role::parent)
    CancelTable::unmap(cancel_table);
}

SnapshotProcess::~SnapshotProcess() {
  end();
  --processes_that_exist;
}

void SnapshotProcess::end() noexcept {
  if (!home_.is_here()) return;
  if (joined_) leave();
  if (joined_ || role() != Role::parent || (pid() == 0 && !client_) || reaped_) return;
  drop_spares();
  // If a child may live on, the socket stays open: its end would end the child.  So does that of a
  // process whose number is not known, or that other Reactors use.
  const bool is_needed = !living_.only_spares() || pid() == 0 || rendezvous_.use_count() > 1;
  const bool will_end =
      is_needed && client_.ask(request_of(RequestKind::stop_without_reports)) && client_.idle();
  if (!will_end && pid() != 0) client_.close();
  abandon();
}

void SnapshotProcess::abandon() noexcept {
  release_rendezvous();
  {
    const ProcessLock lock;
    abandoned().push_back({rendezvous_, std::move(client_), joined_});
  }
  reap_abandoned();
}

void SnapshotProcess::release_rendezvous() noexcept {
  if (rendezvous_.use_count() == 1) rendezvous_->close();
}

// The end of the socket would kill the children, which still have their time to end.
void SnapshotProcess::leave() noexcept {
  drop_spares();
  if (!client_ || living_.only_spares()) return;
  if (client_.ask(request_of(RequestKind::leave)) && client_.idle()) abandon();
}

bool SnapshotProcess::alive() const noexcept {
  return home_.is_here() && (state_ == State::connected || state_ == State::unconnected);
}

bool SnapshotProcess::can_be_asked() const noexcept {
  return alive() && !(client_ && has_hung_up(client_.fd()));
}

void SnapshotProcess::stop() noexcept {
  on_lost_ = nullptr;
  if (!home_.is_here() || role() != Role::parent) return;
  if (state_ != State::connected && !(joined_ && state_ == State::unconnected)) return;
  drop_spares();
  if (!joined_) ask(request_of(RequestKind::stop));
  state_ = State::stopped;
}

void SnapshotProcess::on_loop_destroyed() noexcept {
  const auto keep = std::move(self_);
  read_event_.unset();
  write_event_.unset();
  retry_event_.unset();
  reap_event_.unset();
  again_event_.unset();
  refill_event_.unset();
  starts_event_.unset();
  starts_at_ = never;
  holds_loop_ = false;
  report_.reset();
  failures_.clear();
  loop_.reset();
  living_.forget_listeners();
}

// ---- lost ----

// The control socket has ended: no report will say how the living children end.  They are lost when
// it is known how the process itself has ended.  A child of the snapshot cannot know that; one that
// was only refused may connect again.
void SnapshotProcess::lost() {
  read_event_.remove();
  write_event_.remove();
  retry_event_.remove();
  client_.close();
  if (role() == Role::child) {
    state_ = State::unconnected;
    return lose_children();
  }
  if (state_ != State::stopped) state_ = State::lost;
  holds_loop_ = (state_ == State::lost && on_lost_) || !living_.only_spares();
  if (holds_loop_) loop_->hold();
  inform_observer();
  reap();
}

// Before a call of a lost child is made again: a task that kills its snapshot must not kill the next
// process before that one has forked its successor.
void SnapshotProcess::inform_observer() {
  const auto keep = shared_from_this();
  const std::shared_ptr<ReplicaObserver> observer = observer_.lock();
  if (state_ != State::lost || !observer) return;
  try {
    observer->on_loss(*this);
  } catch (const std::bad_alloc&) {
    look_again_in(std::chrono::milliseconds(1));
  }
}

void SnapshotProcess::lose_children() {
  const Error why = why_lost();
  const std::vector<std::uint64_t> ids = living_.ids();
  if (role() == Role::parent) survivors_.reserve(survivors_.size() + ids.size());
  for (const std::uint64_t id : ids) {
    const SpawnRecord* const found = living_.find(id);
    if (!found) continue;
    const SpawnRecord child = *found;
    lose_child(child, why);
    if (child.pid != 0 && role() == Role::parent) survivors_.push_back(child);
  }
}

void SnapshotProcess::lose_child(const SpawnRecord& child, const Error& why) {
  ExitStatus status;
  status.pid = child.pid;
  status.cause = Cause::snapshot_lost;
  if (child.pid != 0 && how_)
    exit_report(child.id, {status, Error(Errc::snapshot_lost,
                                         "snapshot lost: child " + std::to_string(child.pid) +
                                             " was lost with " + described() + how_it_ended())
                                       .with_exit(status)});
  else if (child.pid != 0)
    exit_report(child.id, {status, std::nullopt});
  else if (child.asked && !refused_ && serves_)
    exit_report(child.id, {status, why});  // forked or not: its task may have run
  else
    exit_report(child.id, {std::nullopt, why});
}

Error SnapshotProcess::why_lost() const {
  if (refused_)
    return Error(Errc::overloaded,
                 "overloaded: too many children of this snapshot have children of their own");
  if (state_ == State::stopped) return was_stopped();
  return serves_ ? is_dead() : was_not_forked();
}

// Returns false if the process has not ended.
bool SnapshotProcess::wait_for_status() {
  if (reaped_) return true;
  Reaped how;
  if (pid() != 0 && !rendezvous_->has_ended(how)) return false;
  reaped_ = true;
  if (pid() == 0) return true;
  how_ = loss_of(how);
  if (state_ == State::lost && start_error_ == 0) loss_ = how_;
  return true;
}

// The socket of a dying process ends a little before the process can be waited for.  The calls do
// not wait long for one that has closed its socket and lives on.
void SnapshotProcess::reap() {
  constexpr int most_looks = 50;
  const auto keep = shared_from_this();
  bool has_ended = false;
  try {
    has_ended = wait_for_status();
    if (has_ended || ++looks_ >= most_looks) lose_children();
  } catch (const std::bad_alloc&) {  // goes on with those that are left
    has_ended = false;
  }
  if (!has_ended) return reap_event_.add_in(std::chrono::milliseconds(1));
  kill_survivors();
  release_rendezvous();
  self_.reset();
  if (std::exchange(holds_loop_, false)) loop_->release();
  inform_observer();
  report_loss();
}

void SnapshotProcess::look_again_in(std::chrono::nanoseconds time) {
  if (loop_ && loop_->alive()) again_event_.add_in(time);
}

// ", which was killed by SIGKILL, not by this library"; empty if it is not known.
std::string SnapshotProcess::how_it_ended() const {
  return how_ ? ", which " + end_in_words(*how_) : "";
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
  status.of_snapshot = true;
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
