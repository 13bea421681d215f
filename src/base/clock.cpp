// clock.cpp - the clock, and sums of times that saturate.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "base/clock.hpp"

#include "base/startup_path.hpp"

#include <time.h>

#include <algorithm>

namespace evparallel::detail {

namespace {

constexpr std::int64_t ns_per_ms = 1000000;

}  // namespace

EVPARALLEL_EARLY std::int64_t now_ns() noexcept {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

std::int64_t deadline_from(std::int64_t at, std::chrono::nanoseconds time) noexcept {
  return time.count() >= no_deadline - at ? no_deadline
                                          : std::max<std::int64_t>(at + time.count(), 1);
}

std::int64_t deadline_from(std::int64_t at, std::chrono::milliseconds time) noexcept {
  constexpr std::chrono::milliseconds longest =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::nanoseconds::max());
  if (time > longest) return no_deadline;
  return deadline_from(at, std::chrono::nanoseconds(time));
}

std::int64_t deadline_in(std::chrono::nanoseconds time) noexcept {
  return deadline_from(now_ns(), time);
}

std::int64_t deadline_in(std::chrono::milliseconds time) noexcept {
  return deadline_from(now_ns(), time);
}

std::int64_t later(std::int64_t now, std::int64_t ms) noexcept {
  return ms > (never - now) / ns_per_ms ? never : now + std::max<std::int64_t>(ms, 0) * ns_per_ms;
}

int wait_until(std::int64_t at, std::int64_t now) noexcept {
  constexpr std::int64_t longest_ms = 60000;
  const std::int64_t left = std::clamp<std::int64_t>(at - now, 0, longest_ms * ns_per_ms);
  return static_cast<int>((left + ns_per_ms - 1) / ns_per_ms);
}

}  // namespace evparallel::detail
