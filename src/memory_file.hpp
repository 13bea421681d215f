// memory_file.hpp - a file in memory, without a name in any folder.
// Licence: see COPYING.
#pragma once

namespace evparallel {

// A new descriptor, close-on-exec, whose file can be sealed.  `name` is for who looks into /proc.
// It is no program: a system that allows none in memory (vm.memfd_noexec) gives it all the same.
// -1: errno, ENOSYS where there are none.
int open_memory_file(const char* name) noexcept;

}  // namespace evparallel
