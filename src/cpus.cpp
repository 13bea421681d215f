// cpus.cpp - affinity, and the quotas of control groups.
// Licence: see COPYING.
#include "cpus.hpp"

#include "text_file.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

namespace evparallel {

namespace {

constexpr unsigned no_quota = 0;

// More CPUs than a set of the usual size has room for are an error: then there is a larger one.
unsigned cpus_by_affinity() {
  for (std::size_t count = CPU_SETSIZE; count <= (std::size_t{1} << 20); count *= 2) {
    cpu_set_t* const set = CPU_ALLOC(count);
    if (!set) return 1;
    const bool known = ::sched_getaffinity(0, CPU_ALLOC_SIZE(count), set) == 0;
    const int found = known ? CPU_COUNT_S(CPU_ALLOC_SIZE(count), set) : 0;
    CPU_FREE(set);
    if (known) return static_cast<unsigned>(std::max(found, 1));
  }
  return 1;
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

// Empty: it is not there.
std::istringstream text_of(const std::string& path) {
  std::string text;
  read_text_file(path, text);
  return std::istringstream(text);
}

// "max 100000", or "150000 100000".
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

// What holds for a group holds for those below it.
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

// A line of /proc/self/cgroup: number, controllers and the group, by colons.
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
  return fewer(cpus_by_affinity(), cpus_by_quota(""));
}

}  // namespace evparallel
