// fault.cpp - the switches of fault.hpp.
// Licence: see COPYING.
#include "fault.hpp"

#include <signal.h>
#include <unistd.h>

namespace evparallel {

Faults faults;

int fault_at_fork() noexcept {
  if (!faults.armed || faults.fork_failures == 0) return 0;
  --faults.fork_failures;
  return faults.fork_errno;
}

FrameFault fault_at_frame() noexcept {
  if (!faults.armed) return FrameFault::none;
  ++faults.frames;
  if (faults.frames == faults.die_at_frame) die_of_fault();
  return faults.frames == faults.cut_frame ? FrameFault::cut : FrameFault::none;
}

void die_of_fault() noexcept {
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

}  // namespace evparallel
