// shared_memory.hpp - memory that this process shares with those that it forks.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstddef>

namespace evparallel {

// All zero.  It costs memory only where it was touched, also in a program that has locked all its memory
// (mlockall(2)).  nullptr: there is none.
void* map_shared(std::size_t size) noexcept;
// In this process only.
void unmap_shared(void*, std::size_t size) noexcept;

}  // namespace evparallel
