// oom_counter.hpp - whether the kernel's OOM killer has killed a process of our control group.
// Runs in: parent.  Licence: see COPYING.
//
// A process that it kills looks like any other that was killed by SIGKILL; but the group counts the
// kills (`oom_kill` in memory.events of cgroup v2, in memory.oom_control of v1).  Children are in
// the group of the program unless they leave it.
#pragma once

#include <cstdint>
#include <string>

namespace evparallel::detail {

class OomCounter {
public:
  // Counts from now on; earlier kills are ignored.  If there is no counter, consume_kill() never
  // returns true.
  void watch();
  // Returns true once for each kill since.
  bool consume_kill();

private:
  std::string counter_;  // a path; empty: there is none
  std::uint64_t known_ = 0;
};

// The path of the counter, from the text of /proc/self/cgroup; `mount` is the path of
// /sys/fs/cgroup.
std::string oom_counter_path(const std::string& cgroups, const std::string& mount);

}  // namespace evparallel::detail
