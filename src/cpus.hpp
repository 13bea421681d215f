// cpus.hpp - how many CPUs this process may use.
// Licence: see COPYING.
#pragma once

#include <string>

namespace evparallel {

// As its affinity and the quotas of its control groups allow; at least 1.
unsigned usable_cpus();

// By quotas alone, as found below `root`; 0: there is none.
unsigned cpus_by_quota(const std::string& root);

}  // namespace evparallel
