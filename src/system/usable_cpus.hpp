// usable_cpus.hpp - how many CPUs this process may use.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace evparallel {

// As its affinity and the quotas of its control groups allow; at least 1.
unsigned usable_cpus();
// The same of a process that may use only these, where there are any.
unsigned usable_cpus(const std::vector<int>& affinity);

// This process uses no other CPUs from now on.  Returns 0 or an errno: EINVAL where one of them cannot be used.
int use_cpus(const std::vector<int>&);
constexpr int highest_cpu = (1 << 20) - 1;

// By quotas alone, as found below `root`; 0: there is none.
unsigned cpus_by_quota(const std::string& root);

}  // namespace evparallel
