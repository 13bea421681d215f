// shared_memory.cpp - mapping shared memory.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/shared_memory.hpp"

#include <sys/mman.h>

namespace evparallel::detail {

// If the program locks what it maps from now on, the kernel allocates all pages of a mapping at
// once, except of one that is not accessible yet.
void* map_shared(std::size_t size) noexcept {
  void* const memory =
      ::mmap(nullptr, size, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  ::munlock(memory, size);
  if (::mprotect(memory, size, PROT_READ | PROT_WRITE) == 0) return memory;
  ::munmap(memory, size);
  return nullptr;
}

void unmap_shared(void* memory, std::size_t size) noexcept {
  ::munmap(memory, size);
}

}  // namespace evparallel::detail
