// pool_stats.hpp - the counters of a pool, and the distribution of its times.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include <evparallel/pool.hpp>

#include <array>

namespace evparallel::detail {

// Times in buckets; the width of a bucket is an eighth of its times.
class Histogram {
public:
  void add(std::int64_t ns, std::uint64_t times = 1) noexcept;
  Percentiles percentiles() const noexcept;

private:
  static constexpr unsigned fine_bits = 3;
  static constexpr unsigned bucket_count = (64 - fine_bits) << fine_bits;
  static unsigned bucket_of(std::uint64_t) noexcept;
  static std::uint64_t top_of(unsigned bucket) noexcept;
  std::int64_t at(double part) const noexcept;

  std::array<std::uint32_t, bucket_count> counts_{};
  std::uint64_t total_ = 0;
};

struct PoolCounts {
  std::uint64_t done = 0;
  std::uint64_t failed = 0;
  std::uint64_t retried = 0;
  std::uint64_t started = 0;
  std::uint64_t respawned = 0;
  std::uint64_t recycled = 0;
  ResourceUsage usage{};
  Histogram wait;
  Histogram run;

  void add(const ResourceUsage&) noexcept;
};

// The private memory of a process in bytes; 0: it cannot be read.
std::size_t own_memory(pid_t) noexcept;
// The processor time of a process in seconds, as RLIMIT_CPU counts it; 0: it is not known.
double cpu_time(pid_t) noexcept;

}  // namespace evparallel::detail
