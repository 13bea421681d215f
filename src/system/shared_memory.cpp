// shared_memory.cpp - mapping shared memory.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/shared_memory.hpp"

#include "system/new_descriptor.hpp"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace evparallel::detail {

namespace {

// If the program locks what it maps from now on, the kernel allocates all pages of a mapping at
// once, except of one that is not accessible yet.
void* map_lazily(int flags, int file, std::size_t size) noexcept {
  void* const memory =
      ::mmap(nullptr, size, PROT_NONE, MAP_SHARED | MAP_NORESERVE | flags, file, 0);
  if (memory == MAP_FAILED) return nullptr;
  ::munlock(memory, size);
  ::madvise(memory, size, MADV_DONTDUMP);  // each core of a child would have all of it
  if (::mprotect(memory, size, PROT_READ | PROT_WRITE) == 0) return memory;
  ::munmap(memory, size);
  return nullptr;
}

// Above the limit the kernel does not only refuse: it sends SIGXFSZ.
bool is_above_limit(std::size_t size) noexcept {
  rlimit limit{};
  return ::getrlimit(RLIMIT_FSIZE, &limit) == 0 && size > limit.rlim_cur;
}

}  // namespace

void* map_shared(std::size_t size) noexcept {
  return map_lazily(MAP_ANONYMOUS, -1, size);
}

int make_shared_file(const char* name, std::size_t size, OwnedFd& file) noexcept {
  if (is_above_limit(size)) return EFBIG;
  OwnedFd made(open_memory_file(name));
  if (!made || ::ftruncate(made.get(), static_cast<off_t>(size)) != 0) return errno;
  file = std::move(made);
  return 0;
}

void* map_shared_file(int file, std::size_t size) noexcept {
  return map_lazily(0, file, size);
}

void unmap_shared(void* memory, std::size_t size) noexcept {
  ::munmap(memory, size);
}

}  // namespace evparallel::detail
