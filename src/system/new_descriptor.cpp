// new_descriptor.cpp - makes descriptors, and makes them again if a number was too low.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/new_descriptor.hpp"

#include "base/retry_eintr.hpp"
#include "base/startup_path.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>

namespace evparallel::detail {

namespace {

constexpr int first_number = STDERR_FILENO + 1;

EVPARALLEL_EARLY bool is_low(int fd) noexcept {
  return fd >= 0 && fd < first_number;
}

// Keeps errno.
void close_quietly(int fd) noexcept {
  const int error = errno;
  ::close(fd);
  errno = error;
}

int take_lowest() noexcept {
  return retry_on_eintr([] { return ::open("/", O_PATH | O_CLOEXEC); });
}

// The first descriptor keeps its number until there is a second one.  It is not renumbered, because
// another thread may have written to it already.
template <class Make>
EVPARALLEL_EARLY int above(Make make) noexcept {
  const int fd = retry_on_eintr(make);
  if (!is_low(fd)) return fd;
  const HeldNumbers held;
  errno = held.error();
  const int other = held.error() ? -1 : retry_on_eintr(make);
  close_quietly(fd);
  return other;
}

template <class Make>
EVPARALLEL_EARLY int pair_above(Make make, int (&ends)[2]) noexcept {
  if (make(ends) != 0) return errno;
  if (!is_low(ends[0]) && !is_low(ends[1])) return 0;
  const int low[] = {ends[0], ends[1]};
  const HeldNumbers held;
  const int error = held.error() ? held.error() : make(ends) != 0 ? errno : 0;
  for (const int fd : low) ::close(fd);
  return error;
}

}  // namespace

int open_file(const char* path, int flags) noexcept {
  return above([=] { return ::open(path, flags | O_CLOEXEC); });
}

int open_file_at(int folder, const char* path, int flags) noexcept {
  return above([=] { return ::openat(folder, path, flags | O_CLOEXEC); });
}

int open_copy(int fd) noexcept {
  return ::fcntl(fd, F_DUPFD_CLOEXEC, first_number);
}

int open_memory_file(const char* name) noexcept {
  constexpr unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  // MFD_NOEXEC_SEAL: Linux has it since 6.3, glibc since 2.38.
  constexpr unsigned no_program = 8;
  const int fd = above([=] { return ::memfd_create(name, flags | no_program); });
  return fd < 0 && errno == EINVAL ? above([=] { return ::memfd_create(name, flags); }) : fd;
}

int open_counter() noexcept {
  return above([] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); });
}

int open_timer() noexcept {
  return above([] { return ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK); });
}

int open_signals(const sigset_t& set) noexcept {
  return above([&] { return ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK); });
}

int open_watch_list() noexcept {
  return above([] { return ::epoll_create1(EPOLL_CLOEXEC); });
}

int open_process(pid_t pid) noexcept {
#ifdef SYS_pidfd_open
  return above([&] { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); });
#else
  static_cast<void>(pid);
  errno = ENOSYS;
  return -1;
#endif
}

int open_end_of_file() noexcept {
  int ends[2];
  errno = open_pipe(ends);
  if (errno != 0) return -1;
  ::close(ends[1]);
  return ends[0];
}

int open_nothing() noexcept {
  return above(take_lowest);
}

int open_pipe(int (&ends)[2]) noexcept {
  return pair_above([](int* to) { return ::pipe2(to, O_CLOEXEC); }, ends);
}

EVPARALLEL_EARLY int open_socket_pair(int type, int (&ends)[2]) noexcept {
  return pair_above([type](int* to) { return ::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, to); },
                    ends);
}

EVPARALLEL_EARLY int above_standard_streams(int fd) noexcept {
  if (!is_low(fd)) return fd;
  const int copy = open_copy(fd);
  close_quietly(fd);
  return copy;
}

HeldNumbers::HeldNumbers(int room) noexcept {
  int above[most_room];
  int count = 0;
  while (count < room) {
    const int fd = take_lowest();
    if (fd < 0) {
      error_ = errno;
      break;
    }
    if (is_low(fd))
      held_[fd] = true;
    else
      above[count++] = fd;
  }
  while (count > 0) ::close(above[--count]);
}

HeldNumbers::~HeldNumbers() {
  for (int fd = 0; fd < first_number; ++fd)
    if (held_[fd]) close_quietly(fd);
}

std::uint64_t number_limit() noexcept {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

}  // namespace evparallel::detail
