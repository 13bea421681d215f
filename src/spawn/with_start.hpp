// with_start.hpp - a task with Options::on_start in front of it.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include <evparallel/start_task.hpp>

namespace evparallel::detail {

// The task that runs `start` first; the task itself if that is empty.
Task with_start(Task, const StartTask& start);

}  // namespace evparallel::detail
