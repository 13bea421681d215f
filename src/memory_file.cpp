// memory_file.cpp - asks the kernel for a file in memory.
// Licence: see COPYING.
#include "memory_file.hpp"

#include <sys/mman.h>

#include <cerrno>

namespace evparallel {

int open_memory_file(const char* name) noexcept {
  constexpr unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  // MFD_NOEXEC_SEAL: Linux since 6.3; glibc has the word since 2.38.
  constexpr unsigned no_program = 8;
  const int fd = ::memfd_create(name, flags | no_program);
  return fd < 0 && errno == EINVAL ? ::memfd_create(name, flags) : fd;
}

}  // namespace evparallel
