// clock.hpp - points in time that processes of one program tell each other.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// Nanoseconds of CLOCK_MONOTONIC, which is the same clock for all of them.
#pragma once

#include <chrono>
#include <cstdint>

namespace evparallel {

constexpr std::int64_t no_deadline = INT64_MAX;
constexpr std::int64_t never = INT64_MAX;

std::int64_t now_ns() noexcept;

// That far from now; no_deadline where it is beyond all time.
std::int64_t deadline_in(std::chrono::nanoseconds) noexcept;
std::int64_t deadline_in(std::chrono::milliseconds) noexcept;
// The same from another moment on, which is not below 0.
std::int64_t deadline_from(std::int64_t at, std::chrono::nanoseconds) noexcept;
std::int64_t deadline_from(std::int64_t at, std::chrono::milliseconds) noexcept;

// `ms` milliseconds after `now`; `never` where that is beyond all time.
std::int64_t later(std::int64_t now, std::int64_t ms) noexcept;
// Milliseconds from `now` until `at`, for poll(2); rounded up, so that what is due then is due.
int wait_until(std::int64_t at, std::int64_t now) noexcept;

}  // namespace evparallel
