// start_task.hpp - a task that runs Options::on_start first.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include <evparallel/start_task.hpp>

namespace evparallel::detail {

// Parent: the task with `start` in front of it.  Requires: a start that is not empty.
Task with_start(Task, const StartTask& start);

}  // namespace evparallel::detail
