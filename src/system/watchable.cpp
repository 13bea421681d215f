// watchable.cpp - asks the kernel about a descriptor or a signal, and changes nothing.
// Runs in: parent, child.  Licence: see COPYING.
#include "system/watchable.hpp"

#include "system/descriptor.hpp"
#include "system/new_descriptor.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <cerrno>

namespace evparallel::detail {

// A socket or a pipe can always be watched, so that no additional descriptor is needed to find out.
// A descriptor made with O_PATH is not open in this sense.
int why_unwatchable(int fd) noexcept {
  struct stat file {};
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fstat(fd, &file) != 0) return errno;
  if ((flags & O_PATH) != 0) return EBADF;
  if (S_ISSOCK(file.st_mode) || S_ISFIFO(file.st_mode)) return 0;
  const OwnedFd list(open_watch_list());
  if (!list) return errno;
  epoll_event nothing{};
  return ::epoll_ctl(list.get(), EPOLL_CTL_ADD, fd, &nothing) == 0 ? 0 : errno;
}

int why_uncatchable(int signum) noexcept {
  struct sigaction now {};
  if (signum == SIGKILL || signum == SIGSTOP) return EINVAL;
  return ::sigaction(signum, nullptr, &now) == 0 ? 0 : errno;
}

}  // namespace evparallel::detail
