// descriptor.cpp - the register of the library's descriptors.
// Licence: see COPYING.
#include "descriptor.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <vector>

namespace evparallel {

namespace {

// One byte a descriptor number: the kernel gives out the lowest free ones.  Never destroyed, since
// handles in static storage may outlive it otherwise.
std::vector<unsigned char>& registered() {
  static auto* numbers = new std::vector<unsigned char>;
  return *numbers;
}

void forget(int fd) noexcept {
  registered()[static_cast<std::size_t>(fd)] = 0;
}

}  // namespace

Descriptor::Descriptor(int fd) noexcept : fd_(fd) {
  if (fd < 0) return;
  const auto index = static_cast<std::size_t>(fd);
  if (registered().size() <= index) registered().resize(index + 64);
  registered()[index] = 1;
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Descriptor::reset() noexcept {
  if (fd_ < 0) return;
  if (is_registered(fd_)) ::shutdown(fd_, SHUT_RDWR);
  drop();
}

void Descriptor::drop() noexcept {
  if (fd_ < 0) return;
  // Not registered: this is a forked copy that has closed it already, and the number may be
  // somebody else's by now.
  if (is_registered(fd_)) {
    forget(fd_);
    ::close(fd_);
  }
  fd_ = -1;
}

void close_registered_except(int keep, int keep_too) noexcept {
  std::vector<unsigned char>& numbers = registered();
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const int fd = static_cast<int>(i);
    if (!numbers[i] || fd == keep || fd == keep_too) continue;
    numbers[i] = 0;
    ::close(fd);
  }
}

bool is_registered(int fd) noexcept {
  const auto index = static_cast<std::size_t>(fd);
  return fd >= 0 && index < registered().size() && registered()[index];
}

}  // namespace evparallel
