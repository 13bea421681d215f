// descriptor.hpp - a descriptor of the library, and the register of all of them.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// The register is why a far process can close everything that belongs to the library and nothing of
// the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace evparallel {

// Owns one descriptor.  A socket is shut down before it is closed: a plain fork() of the program
// may hold a copy, and the other end must hear of the end all the same.  In such a copy it is only
// closed, since the connection is the program's.
class OwnedFd {
public:
  OwnedFd() noexcept = default;
  explicit OwnedFd(int fd) noexcept;  // takes it over; -1: none
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)), serial_(other.serial_) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept;
  ~OwnedFd() { reset(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

  void reset() noexcept;
  // Closes without a shutdown: for a copy whose original another process uses.
  void drop() noexcept;

private:
  int fd_ = -1;
  std::uint32_t serial_ = 0;
};

// A copy of a descriptor that others use as well, perhaps a socket of the program: it is closed, and
// never shut down.
class DupFd {
public:
  DupFd() noexcept = default;
  explicit DupFd(int fd) noexcept : copy_(fd) {}  // takes it over; -1: none
  DupFd(DupFd&&) noexcept = default;
  DupFd& operator=(DupFd&& other) noexcept {
    if (this != &other) {
      copy_.drop();
      copy_ = std::move(other.copy_);
    }
    return *this;
  }
  ~DupFd() { copy_.drop(); }

  int get() const noexcept { return copy_.get(); }
  explicit operator bool() const noexcept { return static_cast<bool>(copy_); }
  void drop() noexcept { copy_.drop(); }

private:
  OwnedFd copy_;
};

// In a forked copy that is the library's: closes every registered descriptor but these two (-1:
// none), without a shutdown, and forgets it; those two are this process's own from now on.  Objects
// that held another may still be destroyed, whatever their numbers are by then.
void close_registered_except(int keep, int keep_too) noexcept;

bool is_registered(int fd) noexcept;

// Where the register stands, which is written whenever a descriptor is made or closed.
struct RegisterMemory {
  const void* from;
  std::size_t size;
};
RegisterMemory register_memory() noexcept;

}  // namespace evparallel
