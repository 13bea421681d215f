// polling.hpp - the only poll(2), and how much can be read.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <poll.h>

#include <cstddef>

namespace evparallel::detail {

// Waits until at least one descriptor is ready, for at most `ms` milliseconds; -1: without a limit.
// Returns how many are ready; 0: none, or a signal came.  The kernel refuses to wait for more
// descriptors than a lowered limit allows: then all count as ready, after a short pause.  The
// caller then polls them without blocking, and also does the rest of its work.
int wait_for(pollfd* what, std::size_t count, int ms) noexcept;

// The errno with which the kernel has refused to wait; 0: it never has.
int refused_to_wait() noexcept;

void pause_for(int ms) noexcept;

// The number of bytes that wait in a pipe, or in a socket for a stream.
std::size_t bytes_to_read(int fd) noexcept;

}  // namespace evparallel::detail
