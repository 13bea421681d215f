// limits.hpp - limits that a process asks the kernel to enforce on it.
// Runs in: child.  Licence: see COPYING.
//
// Each limit applies to this process and to those that it forks.  Each function returns 0, or an
// errno if nothing was changed.  No limit is raised above what the process is allowed already.
#pragma once

#include <cstdint>

namespace evparallel::detail {

int limit_cpu(std::int64_t seconds) noexcept;
// In bytes of address space above what the process has now.
int limit_memory(std::uint64_t more) noexcept;
// The kernel keeps the result between -20 and 19.
int add_to_niceness(std::int64_t) noexcept;

}  // namespace evparallel::detail
