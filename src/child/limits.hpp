// limits.hpp - limits that a process asks the kernel to enforce on it.
// Runs in: child.  Licence: see COPYING.
//
// Each limit applies to this process and to those that it forks.  Each function returns 0, or an
// errno if nothing was changed.  No limit is raised above what the process is allowed already.
#pragma once

#include <time.h>

#include <cstdint>

namespace evparallel::detail {

// The processor time of each call, by timers of this process.  RLIMIT_CPU would not do: once the
// limit that kills is lowered it cannot be raised again, and it counts whole seconds.
class CallCpuLimit {
public:
  // From now on each call is limited.  Returns 0 or an errno.
  int set(std::int64_t seconds) noexcept;
  // Between begin() and end(): at the limit SIGXCPU, and a second later SIGKILL.  A begin() starts
  // anew.  Neither does anything without a limit.
  void begin() const noexcept {
    if (seconds_ > 0) start(seconds_);
  }
  void end() const noexcept {
    if (seconds_ > 0) stop();
  }

private:
  void start(std::int64_t seconds) const noexcept;
  void stop() const noexcept;

  std::int64_t seconds_ = 0;
  timer_t warns_{};
  timer_t kills_{};
};

int limit_cpu(std::int64_t seconds) noexcept;
// In bytes of address space above what the process has now.
int limit_memory(std::uint64_t more) noexcept;
// The kernel keeps the result between -20 and 19.
int add_to_niceness(std::int64_t) noexcept;

}  // namespace evparallel::detail
