// descriptor.hpp - a descriptor of the library, and the register of all of them.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// With the register, a forked process can close every descriptor of the library and none of the
// program.  Threads may make and close different descriptors at the same time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>

namespace evparallel::detail {

// Owns one descriptor.  A socket is shut down before it is closed: a plain fork() of the program
// may hold a copy of it, and the other end must see the end nevertheless.  In such a forked copy it
// is only closed, because the connection belongs to the program.
class OwnedFd {
public:
  OwnedFd() noexcept = default;
  explicit OwnedFd(int fd) noexcept;  // takes ownership; -1: none
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)), serial_(other.serial_) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept;
  ~OwnedFd() { reset(); }

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

  void reset() noexcept;
  // Closes without a shutdown: for a copy whose original is used by another process.
  void close() noexcept;

private:
  int fd_ = -1;
  std::uint32_t serial_ = 0;
};

// Owns a copy of a descriptor that others use as well, perhaps a socket of the program.  It is
// closed, and never shut down.
class DupFd {
public:
  DupFd() noexcept = default;
  explicit DupFd(int fd) noexcept : copy_(fd) {}  // takes ownership; -1: none
  explicit DupFd(OwnedFd&& copy) noexcept : copy_(std::move(copy)) {}
  DupFd(DupFd&&) noexcept = default;
  DupFd& operator=(DupFd&& other) noexcept {
    if (this != &other) {
      copy_.close();
      copy_ = std::move(other.copy_);
    }
    return *this;
  }
  ~DupFd() { copy_.close(); }

  int get() const noexcept { return copy_.get(); }
  explicit operator bool() const noexcept { return static_cast<bool>(copy_); }
  void close() noexcept { copy_.close(); }
  // Nobody else uses it.
  OwnedFd take() noexcept { return std::move(copy_); }

private:
  OwnedFd copy_;
};

// For a process that the library has forked: closes every registered descriptor except these,
// without a shutdown, and removes it from the register.  These belong to this process from now on.  An object that held a closed descriptor may still be destroyed, even if its number
// is in use again by then.
void close_registered_except(std::initializer_list<int>) noexcept;

bool is_registered(int fd) noexcept;

// The memory of the register, which is written whenever a descriptor is made or closed, in blocks.
constexpr std::size_t register_blocks = 25;
struct RegisterMemory {
  const void* from;  // null: there is no such block
  std::size_t size;
};
RegisterMemory register_memory(std::size_t block) noexcept;

}  // namespace evparallel::detail
