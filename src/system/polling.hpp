// polling.hpp - the only poll(2).
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <poll.h>

#include <cstddef>

namespace evparallel {

// Waits until one of them is ready, for at most `ms` milliseconds; -1: for as long as it takes.
// Returns how many are; 0: none, or a signal came.  Where the kernel refuses to wait, as it does for
// more descriptors than a lowered limit allows, all count as ready, and a moment has passed: who
// asks them does not block, and looks at the rest of what it has to look at.
int wait_for(pollfd* what, std::size_t count, int ms) noexcept;

// Why the kernel has refused to wait; 0: it never has.
int refused_to_wait() noexcept;

void pause_for(int ms) noexcept;

}  // namespace evparallel
