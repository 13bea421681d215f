// descriptor.cpp - the register of the library's descriptors.
// Licence: see COPYING.
#include "descriptor.hpp"

#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <vector>

namespace evparallel {

namespace {

struct Registered {
  std::uint32_t serial = 0;  // of the Descriptor that has this number; 0: none
  pid_t owner = 0;           // the process that opened it, or that it was handed over to
};

// By number: the kernel gives out the lowest free ones.  Never destroyed, since handles in static
// storage may outlive it otherwise.
std::vector<Registered>& registered() {
  static auto* numbers = new std::vector<Registered>;
  return *numbers;
}

std::uint32_t next_serial() noexcept {
  static std::uint32_t last = 0;
  if (++last == 0) ++last;
  return last;
}

// Where `fd` stands, if it is still the one of that serial: not where a forked copy has closed it,
// and the number may be somebody else's by now.
Registered* find(int fd, std::uint32_t serial) noexcept {
  if (!is_registered(fd)) return nullptr;
  Registered& found = registered()[static_cast<std::size_t>(fd)];
  return found.serial == serial ? &found : nullptr;
}

}  // namespace

Descriptor::Descriptor(int fd) noexcept : fd_(fd) {
  if (fd < 0) return;
  const auto index = static_cast<std::size_t>(fd);
  if (registered().size() <= index) registered().resize(index + 64);
  serial_ = next_serial();
  registered()[index] = {serial_, ::getpid()};
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
    serial_ = other.serial_;
  }
  return *this;
}

void Descriptor::reset() noexcept {
  if (fd_ < 0) return;
  const Registered* found = find(fd_, serial_);
  if (found && found->owner == ::getpid()) ::shutdown(fd_, SHUT_RDWR);
  drop();
}

void Descriptor::drop() noexcept {
  if (fd_ < 0) return;
  if (Registered* found = find(fd_, serial_)) {
    *found = {};
    ::close(fd_);
  }
  fd_ = -1;
}

void close_registered_except(int keep, int keep_too) noexcept {
  const pid_t self = ::getpid();
  std::vector<Registered>& numbers = registered();
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const int fd = static_cast<int>(i);
    if (numbers[i].serial == 0) continue;
    if (fd == keep || fd == keep_too) {
      numbers[i].owner = self;
      continue;
    }
    numbers[i] = {};
    ::close(fd);
  }
}

bool is_registered(int fd) noexcept {
  const auto index = static_cast<std::size_t>(fd);
  return fd >= 0 && index < registered().size() && registered()[index].serial != 0;
}

RegisterMemory register_memory() noexcept {
  const std::vector<Registered>& numbers = registered();
  return {numbers.data(), numbers.size() * sizeof(Registered)};
}

}  // namespace evparallel
