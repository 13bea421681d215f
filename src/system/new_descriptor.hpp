// new_descriptor.hpp - the only calls that make descriptors.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// No descriptor gets the number of a standard stream.  The program may have closed one: then its
// output would go to a descriptor of the library, or its input would come from there.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstdint>

namespace evparallel::detail {

// Each function returns a number above those of the standard streams, close-on-exec, or -1 with
// errno.

int open_file(const char* path, int flags) noexcept;
int open_file_at(int folder, const char* path, int flags) noexcept;
// Duplicates a descriptor.
int open_copy(int fd) noexcept;
// A file in memory without a name in any folder.  It can be sealed, and cannot be executed if the
// kernel supports that.
int open_memory_file(const char* name) noexcept;
int open_counter() noexcept;                 // eventfd(2), non-blocking
int open_timer() noexcept;                   // timerfd(2) of CLOCK_MONOTONIC, non-blocking
int open_signals(const sigset_t&) noexcept;  // signalfd(2), non-blocking
int open_watch_list() noexcept;              // epoll(7)
// A descriptor of a process, so that its number cannot be reused unnoticed.  Returns -1 also if the
// kernel has no such descriptors, or does not permit it.
int open_process(pid_t) noexcept;
// A descriptor that reads as end of file.
int open_end_of_file() noexcept;
// A descriptor that only occupies a number: reads and writes fail with EBADF.
int open_nothing() noexcept;

// Make two descriptors.  Return 0 or an errno.
int open_pipe(int (&ends)[2]) noexcept;
int open_socket_pair(int type, int (&ends)[2]) noexcept;

// For a descriptor whose number the kernel has chosen, as it does for a received one.  Returns its
// new number; -1: there was no room, and it is closed.
int above_standard_streams(int fd) noexcept;

// Occupies the free numbers of standard streams while it lives, if `room` more descriptors can be
// opened.  For calls of other libraries that make descriptors.
class HeldNumbers {
public:
  static constexpr int most_room = 8;
  explicit HeldNumbers(int room = 1) noexcept;
  HeldNumbers(const HeldNumbers&) = delete;
  HeldNumbers& operator=(const HeldNumbers&) = delete;
  ~HeldNumbers();

  int error() const noexcept { return error_; }  // an errno: there is no room

private:
  bool held_[3] = {};
  int error_ = 0;
};

// The limit of descriptor numbers: this process gets none from this number on.
std::uint64_t number_limit() noexcept;

}  // namespace evparallel::detail
