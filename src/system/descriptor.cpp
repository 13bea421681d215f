// descriptor.cpp - the register of the library's descriptors.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/descriptor.hpp"

#include "base/startup_path.hpp"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <vector>

namespace evparallel::detail {

namespace {

struct Registered {
  std::uint32_t serial = 0;  // of the OwnedFd that has this number; 0: none
  pid_t owner = 0;           // the process that opened it, or that it was handed over to
};

// Indexed by number, because the kernel gives out the lowest free ones.  The numbers of a snapshot
// and of its children are in static storage: a child writes there, and has that page to itself
// anyway.
constexpr std::size_t low_count = 64;
std::array<Registered, low_count> low_numbers;

// From low_count on.  Never destroyed, because handles in static storage may outlive it otherwise.
EVPARALLEL_EARLY std::vector<Registered>& high_numbers() {
  static auto* numbers = new std::vector<Registered>;
  return *numbers;
}

EVPARALLEL_EARLY std::size_t registered_count() noexcept {
  return low_count + high_numbers().size();
}
EVPARALLEL_EARLY Registered& registered(std::size_t number) noexcept {
  return number < low_count ? low_numbers[number] : high_numbers()[number - low_count];
}

EVPARALLEL_EARLY std::uint32_t next_serial() noexcept {
  static std::uint32_t last = 0;
  if (++last == 0) ++last;
  return last;
}

// The entry of `fd`, if it still has this serial.  It has not if a forked copy has closed it, and
// the number may be in use for something else by now.
EVPARALLEL_EARLY Registered* find(int fd, std::uint32_t serial) noexcept {
  if (!is_registered(fd)) return nullptr;
  Registered& found = registered(static_cast<std::size_t>(fd));
  return found.serial == serial ? &found : nullptr;
}

}  // namespace

EVPARALLEL_EARLY OwnedFd::OwnedFd(int fd) noexcept : fd_(fd) {
  if (fd < 0) return;
  const auto index = static_cast<std::size_t>(fd);
  if (registered_count() <= index) high_numbers().resize(index);
  serial_ = next_serial();
  registered(index) = {serial_, ::getpid()};
}

EVPARALLEL_EARLY OwnedFd& OwnedFd::operator=(OwnedFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
    serial_ = other.serial_;
  }
  return *this;
}

EVPARALLEL_EARLY void OwnedFd::reset() noexcept {
  if (fd_ < 0) return;
  const Registered* found = find(fd_, serial_);
  if (found && found->owner == ::getpid()) ::shutdown(fd_, SHUT_RDWR);
  close();
}

EVPARALLEL_EARLY void OwnedFd::close() noexcept {
  if (fd_ < 0) return;
  if (Registered* found = find(fd_, serial_)) {
    *found = {};
    ::close(fd_);
  }
  fd_ = -1;
}

EVPARALLEL_EARLY void close_registered_except(int keep, int keep_too) noexcept {
  const pid_t self = ::getpid();
  for (std::size_t i = 0; i < registered_count(); ++i) {
    const int fd = static_cast<int>(i);
    Registered& number = registered(i);
    if (number.serial == 0) continue;
    if (fd == keep || fd == keep_too) {
      number.owner = self;
      continue;
    }
    number = {};
    ::syscall(SYS_close, fd);  // by number: see unblock_all_signals() in fork.cpp
  }
}

EVPARALLEL_EARLY bool is_registered(int fd) noexcept {
  const auto index = static_cast<std::size_t>(fd);
  return fd >= 0 && index < registered_count() && registered(index).serial != 0;
}

RegisterMemory register_memory() noexcept {
  const std::vector<Registered>& numbers = high_numbers();
  return {numbers.data(), numbers.size() * sizeof(Registered)};
}

}  // namespace evparallel::detail
