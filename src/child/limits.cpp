// limits.cpp - limits of this process, and its niceness.
// Runs in: child.  Licence: see COPYING.
#include "child/limits.hpp"

#include "base/retry_eintr.hpp"
#include "system/new_descriptor.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <limits>

namespace evparallel::detail {

namespace {

// In seconds: the kernel counts nanoseconds.
constexpr std::int64_t no_cpu_limit = INT64_MAX / 1000000000 - 1;

constexpr std::int64_t least_nice = -20;
constexpr std::int64_t most_nice = 19;
constexpr std::uint64_t unknown = 0;

std::size_t page_size() noexcept {
  return static_cast<std::size_t>(::getpagesize());
}

int limit(__rlimit_resource what, std::uint64_t soft, std::uint64_t hard) noexcept {
  rlimit now{};
  if (::getrlimit(what, &now) != 0) return errno;
  const rlimit wanted{std::min<rlim_t>(soft, now.rlim_max), std::min<rlim_t>(hard, now.rlim_max)};
  return ::setrlimit(what, &wanted) == 0 ? 0 : errno;
}

// ---- the address space of this process, in bytes ----

std::uint64_t address_space_by_proc() noexcept {
  const int fd = open_file("/proc/self/statm", O_RDONLY);
  if (fd < 0) return unknown;
  char text[32] = {};
  const ssize_t size = retry_on_eintr([&] { return ::read(fd, text, sizeof text - 1); });
  ::close(fd);
  return size > 0 ? std::strtoull(text, nullptr, 10) * page_size() : unknown;
}

bool has_room_below(rlimit limit, std::uint64_t most) noexcept {
  limit.rlim_cur = most;
  if (::setrlimit(RLIMIT_AS, &limit) != 0) return false;
  void* const page = ::mmap(nullptr, page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return false;
  ::munmap(page, page_size());
  return true;
}

// Without /proc: the lowest limit that leaves room for one page more is one page above the size of
// the address space.
std::uint64_t address_space_by_trial() noexcept {
  rlimit before{};
  if (::getrlimit(RLIMIT_AS, &before) != 0) return unknown;
  constexpr std::uint64_t above_all = std::uint64_t{1} << 57;
  std::uint64_t too_low = 0;
  const std::uint64_t one = page_size();
  std::uint64_t enough = std::min<std::uint64_t>(above_all, before.rlim_cur) / one;
  const bool found = has_room_below(before, enough * one);
  while (found && enough - too_low > 1) {
    const std::uint64_t middle = too_low + (enough - too_low) / 2;
    (has_room_below(before, middle * one) ? enough : too_low) = middle;
  }
  ::setrlimit(RLIMIT_AS, &before);
  return found ? too_low * one : unknown;
}

}  // namespace

int limit_cpu(std::int64_t seconds) noexcept {
  if (seconds >= no_cpu_limit) return 0;
  const auto soft = static_cast<std::uint64_t>(seconds);
  return limit(RLIMIT_CPU, soft, soft + 1);  // with equal limits the kernel sends only SIGKILL
}

// ---- the processor time of a call ----

namespace {

int make_cpu_timer(timer_t& timer, int signum) noexcept {
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = signum;
  return ::timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) == 0 ? 0 : errno;
}

// After `seconds` of processor time from now on; 0: never.
void set_cpu_timer(timer_t timer, std::int64_t seconds) noexcept {
  itimerspec at{};
  constexpr std::int64_t most = std::numeric_limits<time_t>::max();
  at.it_value.tv_sec = static_cast<time_t>(std::min(seconds, most));
  ::timer_settime(timer, 0, &at, nullptr);
}

}  // namespace

int CallCpuLimit::set(std::int64_t seconds) noexcept {
  if (seconds >= no_cpu_limit) return 0;
  if (const int error = make_cpu_timer(warns_, SIGXCPU)) return error;
  if (const int error = make_cpu_timer(kills_, SIGKILL)) return error;
  seconds_ = seconds;
  return 0;
}

void CallCpuLimit::start(std::int64_t seconds) const noexcept {
  set_cpu_timer(warns_, seconds);
  set_cpu_timer(kills_, seconds + 1);
}

void CallCpuLimit::stop() const noexcept {
  set_cpu_timer(warns_, 0);
  set_cpu_timer(kills_, 0);
}

int limit_memory(std::uint64_t more) noexcept {
  std::uint64_t now = address_space_by_proc();
  if (now == unknown) now = address_space_by_trial();
  if (now == unknown) return ENOMEM;
  if (more >= RLIM_INFINITY - now) return 0;
  return limit(RLIMIT_AS, now + more, now + more);
}

int add_to_niceness(std::int64_t added) noexcept {
  errno = 0;
  const int now = ::getpriority(PRIO_PROCESS, 0);
  if (errno != 0) return errno;
  constexpr std::int64_t whole_range = most_nice - least_nice;
  const std::int64_t wanted = now + std::clamp(added, -whole_range, whole_range);
  const auto kept = static_cast<int>(std::clamp(wanted, least_nice, most_nice));
  return ::setpriority(PRIO_PROCESS, 0, kept) == 0 ? 0 : errno;
}

}  // namespace evparallel::detail
