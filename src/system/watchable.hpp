// watchable.hpp - which descriptors and signals a loop can watch.
// Runs in: parent, child.  Licence: see COPYING.
//
// libevent finds out by trying, and writes a line to standard error if the kernel refuses.
#pragma once

namespace evparallel::detail {

// 0: epoll(7) can watch the descriptor.  EPERM: epoll refuses it because it never has to be waited
// for, such as a file or a directory; for poll(2) it is always ready.  EBADF: it is not open.  Other
// numbers: the system has no room for the question.
int why_unwatchable(int fd) noexcept;

// 0: a handler can be set for the signal.  Otherwise EINVAL.
int why_uncatchable(int signum) noexcept;

}  // namespace evparallel::detail
