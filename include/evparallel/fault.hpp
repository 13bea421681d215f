// fault.hpp - faults on demand, so that a program can test how it copes with failed processes.
// Licence: see COPYING.  Manual: evparallel_fault(3).
//
// A plan is plain memory of the process that arms it: the snapshots that are taken while it is
// armed inherit it, and so do their children.  A task may arm a plan in its own process.  A plan
// that is not armed, or is for another process, does nothing.
#pragma once

#include <evparallel/detail/export.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace evparallel {

namespace fault {

enum class Victim { parent, snapshot, child };

// An aggregate: set the faults by name.  A fault that is 0 does not happen.
struct Plan {
  Victim victim = Victim::child;
  unsigned child = 0;  // for Victim::child: the k-th that its snapshot forks, from 1; 0: each

  // In a parent or a child, whose messages are calls, answers, and what a Pipe sends; the first is
  // 1, and all pipes of the process are counted together.
  std::uint64_t die_at_message = 0;  // SIGKILL, and nothing of this message is sent
  std::uint64_t cut_message = 0;     // `cut_to` bytes of its frame are sent, then SIGKILL
  std::size_t cut_to = 0;            // header included
  std::uint64_t delay_message = 0;   // the process pauses for `delay` before it
  std::chrono::milliseconds delay{0};

  // In a snapshot, which forks children, or in a parent, which forks snapshots.
  unsigned fork_failures = 0;     // this number of forks fails, the first ones
  int fork_errno = 0;             // with this errno: EAGAIN, ENOMEM
  std::uint64_t die_at_fork = 0;  // SIGKILL instead of this fork
};

// Arms the plan in this process and in the snapshots that it takes from now on; counts begin anew.
// Replaces an earlier plan.
// Fails: std::logic_error for a fault that this victim cannot have.
EVPARALLEL_API void arm(const Plan&);
EVPARALLEL_API void disarm() noexcept;

// Armed while this object lives, in the process that made it.
class Armed {
public:
  explicit Armed(const Plan& plan) { arm(plan); }
  Armed(const Armed&) = delete;
  Armed& operator=(const Armed&) = delete;
  ~Armed() { disarm(); }
};

}  // namespace fault

}  // namespace evparallel
