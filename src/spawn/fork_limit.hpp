// fork_limit.hpp - how often the lost processes of a snapshot are replaced.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include <algorithm>
#include <cstdint>

namespace evparallel::detail {

// A few at once, so that a service is whole again soon; then at regular intervals, so that processes
// that end as soon as they are forked do not keep the program busy.  If the end of one process more
// would end the service, more of them count as a few.
class ForkLimit {
public:
  static constexpr std::int64_t most_at_once = 16;
  static constexpr std::int64_t most_from_the_last = 256;
  static constexpr std::int64_t interval_ns = 250'000'000;

  // Nanoseconds from `now` until the next fork; 0: now.
  std::int64_t wait_time(std::int64_t now, bool others_live) const noexcept {
    const std::int64_t most = others_live ? most_at_once : most_from_the_last;
    return std::max<std::int64_t>(used_until_ - (most - 1) * interval_ns - now, 0);
  }
  void count(std::int64_t now) noexcept { used_until_ = std::max(used_until_, now) + interval_ns; }

private:
  std::int64_t used_until_ = 0;  // each fork uses up one interval
};

}  // namespace evparallel::detail
