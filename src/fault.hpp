// fault.hpp - faults on demand, so that tests of ends are deterministic.
// Licence: see COPYING.
//
// One structure in plain memory: what the program sets before a snapshot is inherited by it and by
// its children, and a task may set what is to happen to its own process.  Inert until `armed`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace evparallel {

struct Faults {
  bool armed = false;
  // fork() gives this errno, so many times.
  int fork_errno = 0;
  unsigned fork_failures = 0;
  // This process dies by SIGKILL when it is about to queue its k-th frame (1 is the first).  0:
  // never.
  std::uint64_t die_at_frame = 0;
  // The k-th frame is cut to `cut_to` bytes, header included; then the process dies.  0: never.
  std::uint64_t cut_frame = 0;
  std::size_t cut_to = 0;

  std::uint64_t frames = 0;  // queued by this process so far
};

extern Faults faults;

// The errno that this fork is to fail with, or 0.
int fault_at_fork() noexcept;

enum class FrameFault { none, cut };
// Called for each frame before it is queued.
FrameFault fault_at_frame() noexcept;

[[noreturn]] void die_of_fault() noexcept;

}  // namespace evparallel
