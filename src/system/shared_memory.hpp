// shared_memory.hpp - memory that this process shares with the processes that it forks.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include "system/descriptor.hpp"

#include <cstddef>

namespace evparallel::detail {

// Maps zeroed memory.  It is allocated only where it is touched, also in a program that has locked
// all its memory (mlockall(2)).  Returns nullptr on failure.
void* map_shared(std::size_t size) noexcept;
// A file in memory of that size, zeroed, to be mapped by processes that are not forked from this
// one.  Returns 0 or an errno.
int make_shared_file(const char* name, std::size_t size, OwnedFd& file) noexcept;
// As map_shared(), of such a file.
void* map_shared_file(int file, std::size_t size) noexcept;
// Unmaps it in this process only.
void unmap_shared(void*, std::size_t size) noexcept;

}  // namespace evparallel::detail
