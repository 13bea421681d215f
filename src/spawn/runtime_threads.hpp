// runtime_threads.hpp - threads of a runtime below the program: of ThreadSanitizer, of qemu-user.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include <vector>

namespace evparallel::detail {

// Takes from `tids`, the threads of this process other than the calling one, those that belong to a
// runtime.  Such a runtime has one thread, which it starts again in a forked copy itself, and which
// blocks the signals that a process gets from outside.  A thread of the program that blocks them,
// too, stays in the list: the runtime has started its own before it.
void leave_out_runtime_threads(std::vector<int>& tids);

}  // namespace evparallel::detail
