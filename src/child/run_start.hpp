// run_start.hpp - the entry of a task that runs Options::on_start first.
// Runs in: child.  Licence: see COPYING.
#pragma once

#include <evparallel/task.hpp>

namespace evparallel::detail {

// `callables`: a StartHead, the callable of the start, and that of the task.
void run_start_then_task(ChildInterface&, Reader& callables);

}  // namespace evparallel::detail
