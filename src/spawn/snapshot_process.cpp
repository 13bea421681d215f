// snapshot_process.cpp - requests to a process of a snapshot, and its reports.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/snapshot_process.hpp"

#include "base/names.hpp"
#include "base/no_memory.hpp"
#include "system/failpoint.hpp"
#include "codec/task_frame.hpp"
#include "spawn/known_functions.hpp"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>

namespace evparallel::detail {

namespace {

Request with_clock(Request request, const SnapshotProcess::Clock& clock) noexcept {
  request.cause = static_cast<std::int32_t>(clock.cause);
  request.grace_ms = clock.grace.count();
  request.linger_ms = clock.linger.count();
  return request;
}

}  // namespace

// ---- connecting ----

// All children of the snapshot can send to its rendezvous socket: each sends one end of a new
// control socket through it.
// Returns 0 or an errno.
int SnapshotProcess::connect() {
  OwnedFd ours;
  OwnedFd theirs;
  if (const int error = make_pair(PairKind::packets, ours, theirs)) return error;
  fault_at(Failpoint::connect_to_snapshot);
  const char byte = 0;
  const IoResult sent = send_packet(rendezvous_->socket.get(), &byte, sizeof byte, theirs.get());
  if (sent == IoResult::closed && joined_) return lose_unconnected();
  if (sent != IoResult::done) return EAGAIN;
  theirs.close();
  client_ = ControlClient(std::move(ours));
  if (!rendezvous_->knows_numbers) client_.translate_numbers();
  state_ = State::connected;
  refused_ = false;
  shared_->out_of_memory.watch();
  return 0;
}

// It has ended before this Reactor has used it.
int SnapshotProcess::lose_unconnected() {
  state_ = State::lost;
  Reaped how;
  reaped_ = rendezvous_->has_ended(how);
  if (reaped_) how_ = loss_of(how);
  return 0;
}

std::string SnapshotProcess::described() const {
  const std::string& name = shared_->name;
  return (name.empty() ? "process " : name + ", process ") + std::to_string(pid());
}

Error SnapshotProcess::was_stopped() const {
  return Error(Errc::no_snapshot, "no snapshot: " + described() +
                                      " was stopped: name another one in Options::snapshot");
}

Error SnapshotProcess::is_dead() const {
  const std::string end = how_ ? end_in_words(*how_) : "is dead";
  return Error(Errc::snapshot_lost, "snapshot lost: " + described() + " " + end);
}

// Nothing is left that could fork a process in its place.
Error SnapshotProcess::none_lives() const {
  if (!serves_) return was_not_forked();
  const bool only_one = shared_->replicas == 1;
  const std::string others = only_one
                                 ? "; there is no replica that could take over"
                                 : "; all " + std::to_string(shared_->replicas) +
                                       " replicas are dead, and none is left to fork another one";
  return Error(Errc::snapshot_lost, is_dead().what() + others +
                                        ": take another snapshot, and set more " +
                                        "SnapshotOptions::replicas if others end its processes");
}

Error SnapshotProcess::why_gone() const {
  return state_ == State::stopped ? was_stopped() : none_lives();
}

// ---- requests ----

void SnapshotProcess::bind(const std::shared_ptr<Loop>& loop) {
  if (loop_ != loop) {
    if (!loop->alive()) throw std::logic_error("evparallel: the Reactor has been destroyed");
    loop_ = loop;
    self_ = shared_from_this();
    register_with(*loop_);
    reap_event_.set<&SnapshotProcess::reap>(*loop_, -1, 0, this);
    again_event_.set<&SnapshotProcess::inform_observer>(*loop_, -1, 0, this);
    refill_event_.set<&SnapshotProcess::refill>(*loop_, -1, 0, this);
    starts_event_.set<&SnapshotProcess::check_starts>(*loop_, -1, 0, this);
    if (state_ == State::lost) reap_event_.add_in(std::chrono::milliseconds(0));
  }
  if (!client_ || read_event_.added()) return;
  read_event_.set<&SnapshotProcess::on_readable>(*loop_, client_.fd(), EV_READ | EV_PERSIST, this);
  write_event_.set<&SnapshotProcess::on_writable>(*loop_, client_.fd(), EV_WRITE | EV_PERSIST,
                                                  this);
  retry_event_.set<&SnapshotProcess::on_writable>(*loop_, -1, 0, this);
  read_event_.add();
  wait_to_send();
}

// Waits until what is queued can be sent: for the socket, or for the descriptors in flight, of which
// no event tells.
void SnapshotProcess::wait_to_send() {
  if (client_.must_retry()) {
    write_event_.remove();
    retry_event_.add_in(std::chrono::milliseconds(1));
  } else if (client_.idle()) {
    write_event_.remove();
  } else {
    write_event_.add();
  }
}

// Returns why no child can be requested that would run this task.  Empty: it can.
std::optional<Error> SnapshotProcess::why_not(const Task& task) {
  if (std::optional<Error> unknown = why_unknown(*shared_->modules, task)) return unknown;
  const int unreachable = state_ == State::unconnected ? connect() : 0;
  if (unreachable)
    return system_error(Errc::overloaded, "overloaded: the snapshot cannot be contacted now",
                        unreachable);
  if (state_ == State::stopped || state_ == State::lost) return why_gone();
  return std::nullopt;
}

SnapshotProcess::SpawnTicket SnapshotProcess::spawn(const std::shared_ptr<Loop>& loop,
                                                    const Task& task, StdioPlan streams,
                                                    Group group, SpawnObserver* listener) {
  fault_at(Failpoint::spawn);
  reap_abandoned();
  const std::optional<Error> failure = why_not(task);
  bind(loop);
  std::optional<Spare> spare = failure ? std::nullopt : take_spare(task, streams, group);
  OwnedFd ours = spare ? std::move(spare->socket) : OwnedFd();
  OwnedFd theirs;
  if (const int error = spare ? 0 : make_pair(PairKind::stream, ours, theirs))
    throw system_error(Errc::spawn_failed,
                       "spawn failed: the socket pair for a child could not be created", error);
  if (!task.takes_descriptors) refuse_descriptors(ours.get());
  const std::uint64_t number = shared_->next_spawn++;
  const std::uint64_t id = spare ? spare->id : number;
  if (spare)
    hand_over(id, listener);
  else
    ask_for_child(id, failure, std::move(theirs), std::move(streams), group, listener);
  return {id, std::move(ours), seed_of_child(shared_->seed, number)};
}

void SnapshotProcess::ask_for_child(std::uint64_t id, const std::optional<Error>& failure,
                                    OwnedFd socket, StdioPlan streams, Group group,
                                    SpawnObserver* listener) {
  living_.add(id).listener = listener;
  if (failure) return fail_later(id, *failure, std::move(socket));
  Request request = request_of(RequestKind::spawn, id);
  request.group = group;
  request.seed = seed_of_child(shared_->seed, id);
  if (!ask(request, std::move(socket), std::move(streams)))
    fail_later(id,
               error_or_no_memory(
                   Delivery::not_sent,
                   [] {
                     return Error(Errc::overloaded,
                                  "overloaded: too many requests are waiting for the snapshot");
                   }),
               {});
  else
    living_.find(id)->asked = !client_.ended();
}

// False: the queue is full.  In a process that is not the owner it does nothing: the socket belongs
// to the program.
bool SnapshotProcess::ask(const Request& request, OwnedFd along, StdioPlan streams) {
  if (state_ == State::lost || !client_ || !home_.is_here()) return true;
  if (!client_.ask(request, std::move(along), std::move(streams))) return false;
  if (client_.ended()) {
    look_later();
    return true;
  }
  if (!client_.idle() && loop_ && loop_->alive()) wait_to_send();
  return true;
}

void SnapshotProcess::kill(std::uint64_t id, std::uint32_t slot, int signum) {
  Request request = request_of(RequestKind::kill, id, slot);
  request.signum = signum;
  ask(request);
}

void SnapshotProcess::terminate(std::uint64_t id, std::uint32_t slot, const Clock& clock) {
  ask(with_clock(request_of(RequestKind::terminate, id, slot), clock));
}

void SnapshotProcess::kill_if_still_running(std::uint64_t id, std::uint32_t slot,
                                            const Clock& clock, std::uint64_t call,
                                            std::uint64_t ping) {
  Request request = with_clock(request_of(RequestKind::kill_if_still_running, id, slot), clock);
  request.call = call;
  request.ping = ping;
  ask(request);
}

void SnapshotProcess::kill_if_not_started(std::uint64_t id, std::uint32_t slot,
                                          const Clock& clock) {
  ask(with_clock(request_of(RequestKind::kill_if_not_started, id, slot), clock));
}

void SnapshotProcess::look_later() {
  if (!loop_ || !loop_->alive()) return;
  loop_->defer_or_retry(*this, [self = shared_from_this()] {
    if (self->client_) self->on_readable();
  });
}

void SnapshotProcess::forget(std::uint64_t id) noexcept {
  if (SpawnRecord* child = living_.find(id)) child->listener = nullptr;
}

const Slot* SnapshotProcess::slot(std::uint32_t index) const noexcept {
  Slot* const all = rendezvous_->slots;
  return index < slot_count && all ? all + index : nullptr;
}

const CrashRecord* SnapshotProcess::crash_record(std::uint32_t index) const noexcept {
  Slot* const all = rendezvous_->slots;
  return index < slot_count && all ? &detail::crash_record(all, index) : nullptr;
}

// ---- starts ----

// A child that has started writes that into its slot, which is read only when the time of the start
// is over.  So one timer does for all children; it is removed when each of them has sent something.
void SnapshotProcess::limit_start(std::uint64_t id) {
  SpawnRecord* const child = living_.find(id);
  const std::chrono::milliseconds time = child->listener->start_limit().time;
  if (time <= time.zero()) return;
  child->start_by = deadline_in(time);
  if (child->start_by == never) return;
  ++starts_;
  check_starts_at(child->start_by);
}

void SnapshotProcess::end_limit_of_start(std::uint64_t id) noexcept {
  if (SpawnRecord* const child = living_.find(id)) end_limit_of_start(*child);
}

void SnapshotProcess::end_limit_of_start(SpawnRecord& child) noexcept {
  if (std::exchange(child.start_by, never) == never || --starts_ > 0) return;
  starts_at_ = never;
  starts_event_.remove();
}

void SnapshotProcess::check_starts_at(std::int64_t at) {
  if (at >= starts_at_ || !loop_ || !loop_->alive()) return;
  starts_at_ = at;
  starts_event_.add_in(std::chrono::nanoseconds(std::max<std::int64_t>(at - now_ns(), 0)));
}

void SnapshotProcess::check_starts() {
  starts_at_ = never;
  const std::int64_t now = now_ns();
  std::int64_t next = never;
  for (const std::uint64_t id : living_.ids()) {
    SpawnRecord& child = *living_.find(id);
    if (child.start_by <= now) check_start(child, now);
    next = std::min(next, child.start_by);
  }
  check_starts_at(next);
}

// The time counts from when the child has read its task: it is not to blame if this process has run
// no loop and has not sent the task.  A child that has not read it at the second look never will.
void SnapshotProcess::check_start(SpawnRecord& child, std::int64_t now) {
  const Slot* const its = slot(child.slot);
  // Without an observer it has been dropped, and has another limit already.
  if (!child.listener || (its && its->started.load())) return end_limit_of_start(child);
  const SpawnObserver::StartLimit limit = child.listener->start_limit();
  const std::int64_t task_at = its ? std::max<std::int64_t>(its->task_at.load(), 0) : 0;
  const bool looks_again = task_at == 0 && !std::exchange(child.without_task, true);
  const std::int64_t due = deadline_from(looks_again ? now : task_at, limit.time);
  if (due > now) {
    child.start_by = due;
    return;
  }
  end_limit_of_start(child);
  kill_if_not_started(child.id, child.slot,
                      {std::chrono::milliseconds(0), limit.grace, Cause::start_timeout});
}

// ---- reports ----

void SnapshotProcess::on_writable() {
  client_.flush();
  wait_to_send();
}

void SnapshotProcess::on_readable() {
  const auto keep = shared_from_this();
  try {
    if (!take_reports()) lost();
  } catch (const std::bad_alloc&) {
    loop_->retry_later();
  }
}

// Those that have come.  A report that cannot be handled now is kept, and handled before the others.
// False: the socket has ended.
bool SnapshotProcess::take_reports() {
  for (;;) {
    if (!report_) {
      const IoResult flow = client_.take(report_.emplace());
      if (flow != IoResult::done) report_.reset();
      if (flow == IoResult::would_block) return true;
      if (flow == IoResult::closed) return false;
    }
    try {
      take_report(*report_);
    } catch (const std::bad_alloc&) {
      throw;
    } catch (...) {
      report_.reset();
      throw;
    }
    report_.reset();
    if (loop_->interrupted()) return true;  // the socket is still readable in the next run()
  }
}

void SnapshotProcess::retry() {
  const auto keep = shared_from_this();
  if (client_) on_readable();
  report_failures();
}

ExitStatus status_of(const Report& report) {
  ExitStatus status;
  status.pid = report.pid;
  status.wait_status = report.code;
  status.cause = static_cast<Cause>(report.cause);
  status.usage.user_time = std::chrono::microseconds(report.user_us);
  status.usage.system_time = std::chrono::microseconds(report.system_us);
  status.usage.max_rss = static_cast<long>(report.max_rss);
  status.usage.minor_faults = static_cast<long>(report.minor_faults);
  status.usage.major_faults = static_cast<long>(report.major_faults);
  return status;
}

// The pid of a child in this process, from the reported pid; a pid that the kernel did not
// translate is that of the snapshot.
pid_t SnapshotProcess::number_here(pid_t pid) const noexcept {
  return rendezvous_->knows_numbers || pid != this->pid() ? pid : 0;
}

void SnapshotProcess::take_report(const Report& report) {
  if (report.kind == ReportKind::orphans) {
    orphans_killed_ = report.id;
    return;
  }
  if (report.kind == ReportKind::refused_to_wait) {
    std::fprintf(stderr,
                 "evparallel: snapshot (%s) cannot wait for events and checks for them "
                 "periodically: poll: %s\n",
                 described().c_str(), std::strerror(report.code));
    return;
  }
  if (report.kind == ReportKind::begun || report.kind == ReportKind::replica_forked)
    return take_start(report);
  if (report.id == no_spawn) refused_ = true;
  SpawnRecord* const child = living_.find(report.id);
  if (!child) return;
  switch (report.kind) {
    case ReportKind::orphans:
    case ReportKind::refused_to_wait:
    case ReportKind::begun:
    case ReportKind::replica_forked: break;
    case ReportKind::spawned:
      child->pid = number_here(report.pid);
      child->born_before = report.born_before;
      child->slot = report.slot;
      if (SpawnObserver* listener = child->listener)
        loop_->call([&] { listener->on_spawned(child->pid, report.slot); });
      break;
    case ReportKind::failed:
      exit_report(report.id, {std::nullopt, error_or_no_memory(Delivery::not_sent, [&report] {
                                return system_error(
                                    Errc::spawn_failed,
                                    "spawn failed: the snapshot could not fork a child",
                                    report.code);
                              })});
      break;
    case ReportKind::exited: {
      ExitStatus status = status_of(report);
      if (!rendezvous_->knows_numbers) status.pid = child->pid;
      const bool killed = status.cause == Cause::crash && status.signal() == SIGKILL;
      if (killed && shared_->out_of_memory.consume_kill()) status.cause = Cause::out_of_memory;
      exit_report(report.id, {status, std::nullopt});
      break;
    }
  }
}

void SnapshotProcess::exit_report(std::uint64_t id, const SpawnOutcome& word) {
  fault_at(Failpoint::exit_report);
  report_spawned(id);
  SpawnRecord* const child = living_.find(id);
  if (!child) return;
  if (child->listener) child->listener->prepare_for_outcome();
  end_limit_of_start(*child);
  SpawnObserver* const listener = child->listener;
  const bool spare = child->spare;
  living_.erase(id);
  if (spare) return lose_spare(id);
  if (listener) loop_->call([&] { listener->on_outcome(word); });
}

// The child's end of the data socket is kept until then.  Otherwise each write to the other end
// would fail, and each call would ask for a child again, with two more descriptors.
// Fails: std::bad_alloc, and the spawn is forgotten.
void SnapshotProcess::fail_later(std::uint64_t id, const Error& error, OwnedFd socket) {
  try {
    failures_.push_back({id, error, std::move(socket)});
  } catch (...) {
    living_.erase(id);
    throw;
  }
  loop_->defer_or_retry(*this, [self = shared_from_this()] { self->report_failures(); });
}

void SnapshotProcess::report_failures() {
  try {
    while (!failures_.empty()) {
      exit_report(failures_.front().id, {std::nullopt, failures_.front().error});
      failures_.erase(failures_.begin());
      if (loop_->interrupted()) break;
    }
  } catch (const std::bad_alloc&) {
    return loop_->retry_later();
  }
  if (!failures_.empty())
    loop_->defer_or_retry(*this, [self = shared_from_this()] { self->report_failures(); });
}

}  // namespace evparallel::detail
