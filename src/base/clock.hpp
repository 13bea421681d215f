// clock.hpp - points in time that the processes of one program exchange.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// They are nanoseconds of CLOCK_MONOTONIC, which is the same clock in all processes.  In
// milliseconds, a timer that is set late in a millisecond would expire early.
#pragma once

#include <chrono>
#include <cstdint>

namespace evparallel::detail {

constexpr std::int64_t no_deadline = INT64_MAX;
constexpr std::int64_t never = INT64_MAX;

std::int64_t now_ns() noexcept;

// The time at this distance from now; no_deadline if it cannot be represented.
std::int64_t deadline_in(std::chrono::nanoseconds) noexcept;
std::int64_t deadline_in(std::chrono::milliseconds) noexcept;
// The same from the time `at`, which must not be below 0.
std::int64_t deadline_from(std::int64_t at, std::chrono::nanoseconds) noexcept;
std::int64_t deadline_from(std::int64_t at, std::chrono::milliseconds) noexcept;

// `ms` milliseconds after `now`; `never` if that cannot be represented.
std::int64_t later(std::int64_t now, std::int64_t ms) noexcept;
// Milliseconds from `now` until `at`, for poll(2); rounded up, so that the time has come after the
// wait.
int wait_until(std::int64_t at, std::int64_t now) noexcept;

}  // namespace evparallel::detail
