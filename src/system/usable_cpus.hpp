// usable_cpus.hpp - how many CPUs this process may use.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace evparallel::detail {

// The number that its affinity and the quotas of its control groups allow; at least 1.
unsigned usable_cpus();
// The same for a process that may use only these CPUs, if there are any.
unsigned usable_cpus(const std::vector<int>& affinity);

// Restricts this process to these CPUs from now on.  Returns 0 or an errno: EINVAL if one of them
// cannot be used.
int use_cpus(const std::vector<int>&);
constexpr int highest_cpu = (1 << 20) - 1;

// The number by quotas alone, from the files below `root`; 0: there is no quota.
unsigned cpus_by_quota(const std::string& root);

}  // namespace evparallel::detail
