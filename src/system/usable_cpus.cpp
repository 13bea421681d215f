// usable_cpus.cpp - affinity, and the quotas of control groups.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/usable_cpus.hpp"

#include "system/text_file.hpp"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <new>
#include <set>
#include <sstream>

namespace evparallel::detail {

namespace {

constexpr unsigned no_quota = 0;

struct FreeSet {
  void operator()(cpu_set_t* set) const noexcept { CPU_FREE(set); }
};

struct CpuSet {
  std::size_t size = 0;  // in bytes; 0: there is no set
  std::unique_ptr<cpu_set_t, FreeSet> set;

  bool has(int cpu) const noexcept {
    return CPU_ISSET_S(static_cast<std::size_t>(cpu), size, set.get());
  }
};

CpuSet empty_set(std::size_t count) {
  CpuSet made{CPU_ALLOC_SIZE(count), std::unique_ptr<cpu_set_t, FreeSet>(CPU_ALLOC(count))};
  if (!made.set) throw std::bad_alloc();
  CPU_ZERO_S(made.size, made.set.get());
  return made;
}

// The call fails if there are more CPUs than the set has room for: then it is repeated with a
// larger set.
CpuSet affinity_of_this_process() {
  for (std::size_t count = CPU_SETSIZE; count <= std::size_t{highest_cpu} + 1; count *= 2) {
    CpuSet now = empty_set(count);
    if (::sched_getaffinity(0, now.size, now.set.get()) == 0) return now;
  }
  return {};
}

unsigned cpus_by_affinity() {
  const CpuSet now = affinity_of_this_process();
  const int found = now.set ? CPU_COUNT_S(now.size, now.set.get()) : 0;
  return static_cast<unsigned>(std::max(found, 1));
}

unsigned cpus_of(double quota, double period) {
  if (quota <= 0 || period <= 0) return no_quota;
  const double cpus = quota / period;
  return cpus < 1 ? 1 : static_cast<unsigned>(std::min(cpus + 0.999, 1e6));
}

unsigned fewer(unsigned a, unsigned b) {
  if (a == no_quota || b == no_quota) return std::max(a, b);
  return std::min(a, b);
}

// Empty: the file does not exist.
std::istringstream text_of(const std::string& path) {
  std::string text;
  read_text_file(path, text);
  return std::istringstream(text);
}

// The file contains "max 100000", or "150000 100000".
unsigned quota_of_v2(const std::string& folder) {
  std::istringstream file = text_of(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period)) return no_quota;
  return cpus_of(std::strtod(quota.c_str(), nullptr), period);
}

unsigned quota_of_v1(const std::string& folder) {
  std::istringstream quota_file = text_of(folder + "/cpu.cfs_quota_us");
  std::istringstream period_file = text_of(folder + "/cpu.cfs_period_us");
  double quota = 0;
  double period = 0;
  if (!(quota_file >> quota) || !(period_file >> period)) return no_quota;
  return cpus_of(quota, period);
}

// A quota of a group applies to the groups below it.
template <class F>
unsigned least_on_the_way(const std::string& mount, std::string group, F quota_of) {
  unsigned least = no_quota;
  for (;;) {
    least = fewer(least, quota_of(mount + group));
    const std::size_t slash = group.rfind('/');
    if (slash == std::string::npos) return least;
    group.resize(slash);
  }
}

// A line of /proc/self/cgroup: number, controllers and group, separated by colons.
unsigned quota_of_line(const std::string& root, const std::string& line) {
  const std::size_t first = line.find(':');
  const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
  if (second == std::string::npos) return no_quota;
  const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
  std::string group = line.substr(second + 1);
  if (group == "/") group.clear();
  if (controllers == ",,") return least_on_the_way(root + "/sys/fs/cgroup", group, quota_of_v2);
  if (controllers.find(",cpu,") == std::string::npos) return no_quota;
  const std::string cpu = root + "/sys/fs/cgroup/cpu";
  const std::string both = root + "/sys/fs/cgroup/cpu,cpuacct";
  return fewer(least_on_the_way(cpu, group, quota_of_v1),
               least_on_the_way(both, group, quota_of_v1));
}

}  // namespace

unsigned cpus_by_quota(const std::string& root) {
  std::istringstream groups = text_of(root + "/proc/self/cgroup");
  unsigned least = no_quota;
  std::string line;
  while (std::getline(groups, line)) least = fewer(least, quota_of_line(root, line));
  return least;
}

unsigned usable_cpus() {
  return usable_cpus({});
}

unsigned usable_cpus(const std::vector<int>& affinity) {
  const std::set<int> named(affinity.begin(), affinity.end());
  const unsigned by_affinity =
      named.empty() ? cpus_by_affinity() : static_cast<unsigned>(named.size());
  return fewer(by_affinity, cpus_by_quota(""));
}

// The kernel silently ignores the CPUs of a set that cannot be used.
int use_cpus(const std::vector<int>& cpus) {
  const int highest = *std::max_element(cpus.begin(), cpus.end());
  const CpuSet wanted =
      empty_set(std::max<std::size_t>(CPU_SETSIZE, static_cast<std::size_t>(highest) + 1));
  for (const int cpu : cpus)
    CPU_SET_S(static_cast<std::size_t>(cpu), wanted.size, wanted.set.get());
  if (::sched_setaffinity(0, wanted.size, wanted.set.get()) != 0) return errno;
  const CpuSet now = affinity_of_this_process();
  const bool all =
      now.set && std::all_of(cpus.begin(), cpus.end(), [&](int cpu) { return now.has(cpu); });
  return all ? 0 : EINVAL;
}

}  // namespace evparallel::detail
