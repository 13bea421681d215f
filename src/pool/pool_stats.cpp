// pool_stats.cpp - counters, times, and the memory of a child.
// Runs in: parent.  Licence: see COPYING.
#include "pool/pool_stats.hpp"

#include "system/descriptor.hpp"
#include "system/new_descriptor.hpp"
#include "system/process_stat.hpp"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace evparallel::detail {

// ---- times ----

// Below 8 each number has a bucket; above, each power of two has eight.
unsigned Histogram::bucket_of(std::uint64_t value) noexcept {
  if (value < (1U << fine_bits)) return static_cast<unsigned>(value);
  const unsigned power = 63U - static_cast<unsigned>(__builtin_clzll(value));
  const unsigned shift = power - fine_bits;
  return ((shift + 1) << fine_bits) + static_cast<unsigned>(value >> shift) - (1U << fine_bits);
}

std::uint64_t Histogram::top_of(unsigned bucket) noexcept {
  if (bucket < (1U << fine_bits)) return bucket;
  const unsigned shift = (bucket >> fine_bits) - 1;
  const std::uint64_t first = (bucket & ((1U << fine_bits) - 1)) + (1U << fine_bits);
  return ((first + 1) << shift) - 1;
}

void Histogram::add(std::int64_t ns, std::uint64_t times) noexcept {
  const unsigned bucket = bucket_of(static_cast<std::uint64_t>(std::max<std::int64_t>(ns, 0)));
  if (bucket < bucket_count) counts_[bucket] += static_cast<std::uint32_t>(times);
  total_ += times;
}

std::int64_t Histogram::at(double part) const noexcept {
  if (total_ == 0) return 0;
  std::uint64_t below = 0;
  for (unsigned bucket = 0; bucket < bucket_count; ++bucket) {
    below += counts_[bucket];
    if (static_cast<double>(below) >= part * static_cast<double>(total_))
      return static_cast<std::int64_t>(top_of(bucket));
  }
  return INT64_MAX;
}

Percentiles Histogram::percentiles() const noexcept {
  using std::chrono::nanoseconds;
  return {nanoseconds(at(0.5)), nanoseconds(at(0.9)), nanoseconds(at(0.99))};
}

void PoolCounts::add(const ResourceUsage& of) noexcept {
  usage.user_time += of.user_time;
  usage.system_time += of.system_time;
  usage.max_rss = std::max(usage.max_rss, of.max_rss);
  usage.minor_faults += of.minor_faults;
  usage.major_faults += of.major_faults;
}

// ---- memory ----

// statm contains the size, the resident part, and what of that belongs to files or is shared; in
// pages.
std::size_t own_memory(pid_t pid) noexcept {
  if (!proc_has_our_numbers()) return 0;
  char text[128];
  std::snprintf(text, sizeof text, "/proc/%d/statm", static_cast<int>(pid));
  const OwnedFd file(open_file(text, O_RDONLY));
  if (!file) return 0;
  const ssize_t size = ::read(file.get(), text, sizeof text - 1);
  if (size <= 0) return 0;
  text[size] = '\0';
  unsigned long all = 0;
  unsigned long resident = 0;
  unsigned long shared = 0;
  if (std::sscanf(text, "%lu %lu %lu", &all, &resident, &shared) != 3 || resident < shared)
    return 0;
  return (resident - shared) * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

// ---- processor time ----

// The clock that RLIMIT_CPU looks at, which counts ticks: on a virtual machine it differs by a third
// from the one of clock_getcpuclockid(3), whose lowest bits are CPUCLOCK_SCHED.  Without these they
// are CPUCLOCK_PROF (Linux, include/linux/posix-timers.h).
double cpu_time(pid_t pid) noexcept {
  constexpr clockid_t kind = 3;
  clockid_t clock{};
  timespec used{};
  if (pid == 0 || ::clock_getcpuclockid(pid, &clock) != 0 ||
      ::clock_gettime(clock & ~kind, &used) != 0)
    return 0;
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

}  // namespace evparallel::detail
