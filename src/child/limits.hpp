// limits.hpp - what a process asks the kernel to hold it to.
// Runs in: child.  Licence: see COPYING.
//
// Each holds for this process and for those that it forks, and returns 0 or an errno: then nothing has
// changed.  No limit goes above what the process is allowed already.
#pragma once

#include <cstdint>

namespace evparallel {

int limit_cpu(std::int64_t seconds) noexcept;
// Bytes of address space above what the process has now.
int limit_memory(std::uint64_t more) noexcept;
// The kernel keeps it from -20 to 19.
int add_to_niceness(std::int64_t) noexcept;

}  // namespace evparallel
