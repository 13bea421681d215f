// termination.hpp - how the snapshot ends children: signals, timers, and the cause of an end.
// Runs in: snapshot.  Licence: see COPYING.
//
// The object lives in the snapshot alone.  Children are killed only here, and only before they are
// reaped; what is left of the process group of one, by reap_next(); orphans, by orphans.cpp.
#pragma once

#include "system/fork.hpp"
#include "codec/wire.hpp"
#include "snapshot/child_table.hpp"

namespace evparallel::detail {

class Terminator {
public:
  // Requires: the object stands in zeroed memory.
  void set_up(ChildTable&, Slot* slots) noexcept;

  void signal(ChildIndex, int signum, Cause why) noexcept;
  // Sets the timers for a request of kind `terminate`, `kill_if_still_running` or
  // `kill_if_not_started`.  Keeps a timer that expires earlier, and a pending kill that still
  // applies.
  void set_clocks(ChildIndex, const Request&) noexcept;

  // Acts on the timers that have expired.
  void check_timers(std::int64_t now) noexcept;
  // Milliseconds from `now` until the next timer expires, in the form that poll(2) takes.
  int wait_time(std::int64_t now) const noexcept;

  Cause cause_of(ChildIndex, int wait_status) const noexcept;
  Report exit_report(ChildIndex, const Reaped&) const noexcept;

private:
  bool is_still_running(ChildIndex) const noexcept;
  bool request_stop(ChildIndex) noexcept;
  void kill_if_still_running(ChildIndex) noexcept;
  void terminate(ChildIndex, std::int64_t now, std::int64_t grace_ms, Cause) noexcept;
  void look_at(ChildIndex, std::int64_t now) noexcept;

  ChildTable* children_;
  Slot* slots_;
  std::int64_t next_;  // no timer expires before it
};

}  // namespace evparallel::detail
