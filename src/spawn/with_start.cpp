// with_start.cpp - a task with Options::on_start in front of it.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/with_start.hpp"

#include "codec/task_frame.hpp"
#include "child/run_start.hpp"

namespace evparallel::detail {

Task with_start(Task task, const StartTask& start) {
  if (!start) return task;
  const StartHead head{start.entry(), task.entry, start.callable().size()};
  std::string callables(reinterpret_cast<const char*>(&head), sizeof head);
  callables.append(start.callable()).append(task.callable);
  // The warm-up of spare children, and the check for late libraries, look for them.
  task.functions.add(reinterpret_cast<AnyFunction>(task.entry));
  task.functions.add(reinterpret_cast<AnyFunction>(start.entry()));
  for (const AnyFunction function : start.functions()) task.functions.add(function);
  task.entry = &run_start_then_task;
  task.callable = std::move(callables);
  return task;
}

}  // namespace evparallel::detail
