// fault.hpp - faults on demand, so that a program can test what it does when one of its processes
// fails.
// Licence: see COPYING.  Manual: evparallel_fault(3).
//
// A plan is plain memory of the process that arms it: the snapshots that are taken while it is armed
// have it, and so have their children.  A task may arm one in its own process.  Until then, and in a
// process that it is not for, a plan does nothing.
#pragma once

#include <evparallel/detail/export.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace evparallel {

namespace fault {

enum class Victim { parent, snapshot, child };

// An aggregate: set what is to happen, by name.  What is 0 does not happen.
struct Plan {
  Victim victim = Victim::child;
  unsigned child = 0;  // for Victim::child: the k-th that its snapshot forks, from 1; 0: each

  // Of a parent or a child, whose messages are calls, answers, and what a Pipe sends; the first is
  // 1, and all pipes of the process count together.
  std::uint64_t die_at_message = 0;  // SIGKILL, and nothing of it is sent
  std::uint64_t cut_message = 0;     // `cut_to` bytes of its frame are sent, then SIGKILL
  std::size_t cut_to = 0;            // header included
  std::uint64_t delay_message = 0;   // the process stands still for `delay` before it
  std::chrono::milliseconds delay{0};

  // Of a snapshot, which forks children, or of a parent, which forks snapshots.
  unsigned fork_failures = 0;     // so many forks fail, the first ones
  int fork_errno = 0;             // of this: EAGAIN, ENOMEM
  std::uint64_t die_at_fork = 0;  // SIGKILL, instead of this fork
};

// From now on, in this process and in the snapshots that it takes; counted anew.  What was armed
// before is forgotten.
// Fails: std::logic_error for what cannot happen to this victim.
EVPARALLEL_API void arm(const Plan&);
EVPARALLEL_API void disarm() noexcept;

// Armed as long as this lives, in the process that made it.
class Armed {
public:
  explicit Armed(const Plan& plan) { arm(plan); }
  Armed(const Armed&) = delete;
  Armed& operator=(const Armed&) = delete;
  ~Armed() { disarm(); }
};

}  // namespace fault

}  // namespace evparallel
