// oom_counter.hpp - whether the kernel's out-of-memory killer has been at work in our control
// group.
// Runs in: parent.  Licence: see COPYING.
//
// A process that it kills looks like any that was killed by SIGKILL; but the group counts
// (`oom_kill` in memory.events of cgroup v2, in memory.oom_control of v1).  Children live in the
// group of the program, unless they leave it.
#pragma once

#include <cstdint>
#include <string>

namespace evparallel {

class OomCounter {
public:
  // From now on: what was counted before is none of ours.  Where there is no counter, nothing is
  // ever told.
  void watch();
  // True once for each kill that was counted since.
  bool consume_kill();

private:
  std::string counter_;  // a path; empty: there is none
  std::uint64_t known_ = 0;
};

// The path of the counter, from the text of /proc/self/cgroup; `mount` stands for /sys/fs/cgroup.
std::string oom_counter_path(const std::string& cgroups, const std::string& mount);

}  // namespace evparallel
