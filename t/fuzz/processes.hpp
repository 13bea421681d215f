// processes.hpp - the processes of a script: forks, ends and signals without any process.
//
// processes.cpp has the functions of system/fork.hpp and system/polling.hpp, in place of the library's own.  So a target
// runs the code of the snapshot, of the parent or of a child in its own process, and says what the others do.
#pragma once

#include "system/fork.hpp"

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <vector>

namespace fuzzing {

struct Processes {
  // Forks the snapshot, with the argument of its main function.  Returns its number.
  std::function<pid_t(void* argument)> on_fork_of_snapshot;
  // Called while the snapshot waits and nothing is ready for it.
  enum class Step { look_again, time_is_over };
  std::function<Step()> on_wait;
  std::int64_t now = 0;  // in place of the clock, unless it is 0

  pid_t next_child = first_child;
  std::set<pid_t> living;                        // children of the snapshot
  std::deque<evparallel::detail::Reaped> ended;  // those that the snapshot has not reaped
  bool snapshot_has_ended = false;
  int fork_error = 0;  // an errno: no child can be forked
  std::uint64_t signals = 0;
  std::set<pid_t> survivors_killed;  // by the parent, of a snapshot that is lost

  // The numbers of no process of this machine.
  static constexpr pid_t snapshot = 0x40000000;
  static constexpr pid_t first_child = 0x40000001;
  bool is_child(pid_t pid) const noexcept { return pid >= first_child && pid < next_child; }
  // The child ends; the snapshot learns of it by its signal descriptor.
  void end(pid_t, int wait_status);
};

// Those of this run.
Processes& processes();
void reset_processes();

// Calls `f`, and returns when it returns, or when the code in it ends its process.  Objects on its stack are left as
// they are, as at such an end; the mappings that it has made are gone.
void run_as_process(const std::function<void()>& f);

}  // namespace fuzzing
