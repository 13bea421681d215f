// termination.hpp - how the snapshot ends children: signals, clocks, and what an end is called then.
// Runs in: snapshot.  Licence: see COPYING.
//
// Lives in the snapshot alone.  Only here, and only what has not been reaped, is anything ever
// killed.
#pragma once

#include "system/fork.hpp"
#include "codec/wire.hpp"
#include "snapshot/child_table.hpp"

namespace evparallel {

class Terminator {
public:
  // Requires: the object stands in zeroed memory.
  void set_up(ChildTable&, Slot* slots) noexcept;

  void signal(ChildIndex, int signum, Cause why) noexcept;
  // Sets the clocks as a request of kind `terminate` or `strike` says.  A clock that would run out
  // earlier is left alone, and so is a strike that would still hit.
  void set_clocks(ChildIndex, const Request&) noexcept;

  // Carries out what is due.
  void look_at_clocks(std::int64_t now) noexcept;
  // Milliseconds from `now` until there is something due, as poll(2) wants them.
  int wait_time(std::int64_t now) const noexcept;

  Cause cause_of(ChildIndex, int wait_status) const noexcept;
  Report exit_report(ChildIndex, const Reaped&) const noexcept;

private:
  bool is_still_running(ChildIndex) const noexcept;
  void kill_if_still_running(ChildIndex) noexcept;
  void terminate(ChildIndex, std::int64_t now, std::int64_t grace_ms, Cause) noexcept;
  void look_at(ChildIndex, std::int64_t now) noexcept;

  ChildTable* children_;
  Slot* slots_;
  std::int64_t next_;  // nothing is due before it
};

}  // namespace evparallel
