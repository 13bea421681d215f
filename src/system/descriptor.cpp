// descriptor.cpp - the register of the library's descriptors.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/descriptor.hpp"

#include "base/startup_path.hpp"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>

namespace evparallel::detail {

namespace {

// What is known of one number: the serial of the OwnedFd that has it, and the process that opened
// it, or that it was handed over to.  One word, because threads make and close descriptors at the
// same time.
struct Registered {
  std::uint32_t serial = 0;  // 0: none
  pid_t owner = 0;

  static Registered of(std::uint64_t word) noexcept {
    return {static_cast<std::uint32_t>(word >> 32), static_cast<pid_t>(word & UINT32_MAX)};
  }
  std::uint64_t word() const noexcept {
    return std::uint64_t{serial} << 32 | static_cast<std::uint32_t>(owner);
  }
};
using Entry = std::atomic<std::uint64_t>;

// Indexed by number, because the kernel gives out the lowest free ones.  The numbers of a snapshot
// and of its children are in static storage: a child writes there, and has that page to itself
// anyway.
constexpr std::size_t low_count = 64;
std::array<Entry, low_count> low_numbers{};

// From low_count on: block k has the numbers from low_count << k to that of the next block.  A block
// stays where it is, because other threads use it.  Never freed, because handles in static storage
// may outlive it otherwise.
std::array<std::atomic<Entry*>, register_blocks> high_numbers{};

std::size_t size_of_block(std::size_t block) noexcept {
  return low_count << block;
}

std::size_t block_of(std::size_t number) noexcept {
  std::size_t block = 0;
  while (number >= size_of_block(block + 1)) ++block;
  return block;
}

// Null: no descriptor with a number like this was registered yet.
EVPARALLEL_EARLY Entry* entry_of(int fd) noexcept {
  if (fd < 0) return nullptr;
  const auto number = static_cast<std::size_t>(fd);
  if (number < low_count) return &low_numbers[number];
  const std::size_t block = block_of(number);
  Entry* const entries = high_numbers[block].load(std::memory_order_acquire);
  return entries ? entries + (number - size_of_block(block)) : nullptr;
}

// The same, and makes the block.
EVPARALLEL_EARLY Entry& made_entry_of(int fd) noexcept {
  if (Entry* const entry = entry_of(fd)) return *entry;
  const std::size_t block = block_of(static_cast<std::size_t>(fd));
  Entry* const made = new Entry[size_of_block(block)]();
  Entry* none = nullptr;
  if (!high_numbers[block].compare_exchange_strong(none, made)) delete[] made;
  return *entry_of(fd);
}

EVPARALLEL_EARLY std::uint32_t next_serial() noexcept {
  static std::atomic<std::uint32_t> last{0};
  std::uint32_t serial;
  do serial = ++last;
  while (serial == 0);
  return serial;
}

// Whether `fd` still has this serial.  It has not if a forked copy has closed it, and the number may
// be in use for something else by now.
EVPARALLEL_EARLY bool holds(const Entry* entry, std::uint32_t serial, Registered& found) noexcept {
  if (!entry) return false;
  found = Registered::of(entry->load(std::memory_order_acquire));
  return found.serial == serial;
}

// Calls `f` with each entry and its number.
template <class F>
EVPARALLEL_EARLY void for_each_entry(F f) noexcept {
  for (std::size_t i = 0; i < low_count; ++i) f(static_cast<int>(i), low_numbers[i]);
  for (std::size_t block = 0; block < register_blocks; ++block) {
    Entry* const entries = high_numbers[block].load(std::memory_order_acquire);
    for (std::size_t i = 0; entries && i < size_of_block(block); ++i)
      f(static_cast<int>(size_of_block(block) + i), entries[i]);
  }
}

}  // namespace

EVPARALLEL_EARLY OwnedFd::OwnedFd(int fd) noexcept : fd_(fd) {
  if (fd < 0) return;
  serial_ = next_serial();
  made_entry_of(fd).store(Registered{serial_, ::getpid()}.word(), std::memory_order_release);
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
  Registered found;
  if (holds(entry_of(fd_), serial_, found) && found.owner == ::getpid()) ::shutdown(fd_, SHUT_RDWR);
  close();
}

// It leaves the register first: after close(2) another thread may get its number.
EVPARALLEL_EARLY void OwnedFd::close() noexcept {
  if (fd_ < 0) return;
  Entry* const entry = entry_of(fd_);
  if (Registered found; holds(entry, serial_, found)) {
    entry->store(0, std::memory_order_release);
    ::close(fd_);
  }
  fd_ = -1;
}

EVPARALLEL_EARLY void close_registered_except(std::initializer_list<int> kept) noexcept {
  const pid_t self = ::getpid();
  for_each_entry([self, kept](int fd, Entry& entry) {
    const Registered found = Registered::of(entry.load(std::memory_order_relaxed));
    if (found.serial == 0) return;
    if (std::find(kept.begin(), kept.end(), fd) != kept.end()) {
      entry.store(Registered{found.serial, self}.word(), std::memory_order_relaxed);
      return;
    }
    entry.store(0, std::memory_order_relaxed);
    ::syscall(SYS_close, fd);  // by number: see unblock_all_signals() in fork.cpp
  });
}

EVPARALLEL_EARLY bool is_registered(int fd) noexcept {
  const Entry* const entry = entry_of(fd);
  return entry && Registered::of(entry->load(std::memory_order_acquire)).serial != 0;
}

RegisterMemory register_memory(std::size_t block) noexcept {
  const Entry* const entries = high_numbers[block].load(std::memory_order_acquire);
  return {entries, entries ? size_of_block(block) * sizeof(Entry) : 0};
}

}  // namespace evparallel::detail
