// polling.cpp - waits, also if the kernel refuses poll(2).
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/polling.hpp"

#include <sys/ioctl.h>

#include <cerrno>
#include <ctime>

namespace evparallel::detail {

namespace {

constexpr int a_moment_ms = 20;
int refusal = 0;

}  // namespace

int wait_for(pollfd* what, std::size_t count, int ms) noexcept {
  const int ready = ::poll(what, count, ms);
  if (ready >= 0) return ready;
  if (errno == EINTR) return 0;
  refusal = errno;
  if (ms != 0) pause_for(ms < 0 || ms > a_moment_ms ? a_moment_ms : ms);
  for (std::size_t i = 0; i < count; ++i)
    what[i].revents = what[i].fd < 0 ? short{0} : what[i].events;
  return static_cast<int>(count);
}

int refused_to_wait() noexcept {
  return refusal;
}

void pause_for(int ms) noexcept {
  constexpr int ms_a_second = 1000;
  constexpr long ns_a_ms = 1000000;
  const timespec time{ms / ms_a_second, ms % ms_a_second * ns_a_ms};
  ::nanosleep(&time, nullptr);
}

std::size_t bytes_to_read(int fd) noexcept {
  int count = 0;
  return ::ioctl(fd, FIONREAD, &count) == 0 && count > 0 ? static_cast<std::size_t>(count) : 0;
}

}  // namespace evparallel::detail
