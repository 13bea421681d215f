// termination.cpp - signals and timers of the snapshot.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/termination.hpp"

#include "shared/cancel_table.hpp"

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>

namespace evparallel::detail {

namespace {

std::uint64_t bit_of(int signum) noexcept {
  return std::uint64_t{1} << (signum - 1);
}

}  // namespace

void Terminator::set_up(ChildTable& children, Slot* slots) noexcept {
  children_ = &children;
  slots_ = slots;
  next_ = never;
}

void Terminator::signal(ChildIndex index, int signum, Cause why) noexcept {
  ChildEntry& child = (*children_)[index];
  const bool sent = kill_process(child.pid, signum);
  if (signum == SIGKILL) kill_group(child.pid, SIGKILL);
  if (!sent) return;
  if (why != Cause::killed && child.terminated_with == 0) child.ended_for = why;
  if (signum > 0 && signum <= 64)
    (why == Cause::killed ? child.killed_with : child.terminated_with) |= bit_of(signum);
}

// ---- timers ----

void Terminator::set_clocks(ChildIndex index, const Request& request) noexcept {
  ChildEntry& child = (*children_)[index];
  const std::int64_t at = later(now_ns(), request.linger_ms);
  const Cause cause = static_cast<Cause>(request.cause);
  if (request.kind == RequestKind::terminate) {
    child.grace_ms = request.grace_ms;
    if (at >= child.terminate_at) return;
    child.terminate_at = at;
    child.terminate_for = cause;
  } else {
    // Of two limits for the start the sooner one counts.  A running call is ended by the first one.
    const bool start = request.kind == RequestKind::kill_if_not_started;
    const bool sooner = start && child.overdue_start && at < child.overdue_at;
    if (child.overdue_at != never && is_still_running(index) && !sooner) return;
    child.overdue_at = at;
    child.overdue_start = start;
    child.overdue_call = request.call;
    child.overdue_ping = request.ping;
    child.overdue_grace_ms = request.grace_ms;
    child.overdue_cause = cause;
  }
  next_ = std::min(next_, at);
}

bool Terminator::is_still_running(ChildIndex index) const noexcept {
  const ChildEntry& child = (*children_)[index];
  const Slot& slot = slots_[index];
  if (child.overdue_start) return !slot.started.load();
  if (child.overdue_call == 0) return slot.answered_ping.load() < child.overdue_ping;
  return slot.call.load() == CallState{child.overdue_call, true}.word();
}

// False: the child has gone on meanwhile.
bool Terminator::request_stop(ChildIndex index) noexcept {
  const ChildEntry& child = (*children_)[index];
  Slot& slot = slots_[index];
  if (child.overdue_start) return slot.request_stop_before_start();
  if (child.overdue_call != 0) return slot.request_stop_in_call(child.overdue_call);
  slot.request_stop();
  return true;
}

void Terminator::kill_if_still_running(ChildIndex index) noexcept {
  const ChildEntry& child = (*children_)[index];
  if (!is_still_running(index) || !request_stop(index)) return;
  terminate(index, now_ns(), child.overdue_grace_ms, child.overdue_cause);
}

void Terminator::terminate(ChildIndex index, std::int64_t now, std::int64_t grace_ms,
                           Cause cause) noexcept {
  ChildEntry& child = (*children_)[index];
  signal(index, SIGTERM, cause);
  child.kill_at = std::min(child.kill_at, later(now, grace_ms));
}

void Terminator::look_at(ChildIndex index, std::int64_t now) noexcept {
  ChildEntry& child = (*children_)[index];
  if (now >= child.overdue_at) {
    child.overdue_at = never;
    kill_if_still_running(index);
  }
  if (now >= child.kill_at) {
    child.kill_at = never;
    signal(index, SIGKILL, child.ended_for);
  } else if (now >= child.terminate_at) {
    child.terminate_at = never;
    terminate(index, now, child.grace_ms, child.terminate_for);
  }
  next_ = std::min({next_, child.overdue_at, child.terminate_at, child.kill_at});
}

void Terminator::check_timers(std::int64_t now) noexcept {
  if (now < next_) return;
  next_ = never;
  for (ChildIndex i = 0; i < children_->used(); ++i)
    if ((*children_)[i].stage == Stage::living) look_at(i, now);
}

int Terminator::wait_time(std::int64_t now) const noexcept {
  return next_ == never ? -1 : wait_until(next_, now);
}

// ---- causes ----

Cause Terminator::cause_of(ChildIndex index, int status) const noexcept {
  const ChildEntry& child = (*children_)[index];
  if (WIFEXITED(status)) {
    // The child has a stop request and has obeyed it: it has not ended by itself.
    if (slots_[index].stop_request.load() != StopRequest::none) return child.overdue_cause;
    return WEXITSTATUS(status) == 0 ? Cause::normal : Cause::error;
  }
  const std::uint64_t bit = bit_of(WTERMSIG(status));
  if (child.killed_with & bit) return Cause::killed;
  if (child.terminated_with & bit) return child.ended_for;
  return WTERMSIG(status) == SIGXCPU ? Cause::cpu_limit : Cause::crash;
}

Report Terminator::exit_report(ChildIndex index, const Reaped& ended) const noexcept {
  const ChildEntry& child = (*children_)[index];
  Report report{};
  report.kind = ReportKind::exited;
  report.slot = index;
  report.id = child.id;
  report.pid = child.pid;
  report.code = ended.wait_status;
  report.cause = static_cast<std::int32_t>(cause_of(index, ended.wait_status));
  report.user_us = ended.usage.user_time.count();
  report.system_us = ended.usage.system_time.count();
  report.max_rss = ended.usage.max_rss;
  report.minor_faults = ended.usage.minor_faults;
  report.major_faults = ended.usage.major_faults;
  return report;
}

}  // namespace evparallel::detail
