// new_descriptor.hpp - the only calls that make descriptors.  None gets the number of a standard stream: the
// program may have closed one, and what it prints would go to the library's descriptor, or what it
// reads would come from there.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstdint>

namespace evparallel {

// Each returns a number above those of the standard streams, close-on-exec, or -1 with errno.

int open_file(const char* path, int flags) noexcept;
int open_file_at(int folder, const char* path, int flags) noexcept;
// Another number of the same open file.
int open_copy(int fd) noexcept;
// A file in memory, without a name in any folder, that can be sealed, and not run where the kernel
// knows how to see to that.
int open_memory_file(const char* name) noexcept;
int open_counter() noexcept;                 // eventfd(2), non-blocking
int open_signals(const sigset_t&) noexcept;  // signalfd(2), non-blocking
// A process, so that its number is not another's meanwhile.  -1 also where the kernel knows no such
// descriptors, or does not let us.
int open_process(pid_t) noexcept;
// Read it and there is an end of file.
int open_end_of_file() noexcept;
// It takes a number and does nothing else: to read or to write fails with EBADF.
int open_nothing() noexcept;

// Two of them.  Return 0 or an errno.
int open_pipe(int (&ends)[2]) noexcept;
int open_socket_pair(int type, int (&ends)[2]) noexcept;

// For a descriptor whose number the kernel has chosen, as it does when one is received: what it is
// called from now on.  -1: there was no room, and it is closed.
int above_standard_streams(int fd) noexcept;

// The numbers of standard streams that are free are taken as long as this lives: for descriptors
// that others make, where there is room for so many.
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

// The number from which on this process is given none.
std::uint64_t number_limit() noexcept;

}  // namespace evparallel
