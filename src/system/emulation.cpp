// emulation.cpp - asks /proc, which qemu-user shows its guest in a different way.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/emulation.hpp"

#include <limits.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace evparallel::detail {

namespace {

struct Path {
  char bytes[PATH_MAX];
  ssize_t size;

  explicit Path(const char* link) noexcept : size(::readlink(link, bytes, sizeof bytes)) {}
  bool operator==(const Path& other) const noexcept {
    return size == other.size &&
           (size <= 0 || std::memcmp(bytes, other.bytes, static_cast<std::size_t>(size)) == 0);
  }
};

}  // namespace

// qemu-user shows its guest the guest's program in the first place, and forgets the second
// (linux-user/syscall.c, do_guest_readlink).
bool is_emulated() noexcept {
  const int error = errno;
  const bool is_one = Path("/proc/self/exe") == Path("/proc/thread-self/exe");
  errno = error;
  return !is_one;
}

}  // namespace evparallel::detail
