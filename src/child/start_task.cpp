// start_task.cpp - a task that runs Options::on_start first.
// Runs in: parent, child.  Licence: see COPYING.
#include "child/start_task.hpp"

#include <cstdint>

namespace evparallel::detail {

namespace {

// Stands before the callable of on_start, and that before the one of the task.
struct StartHead {
  StartTask::Entry start = nullptr;
  Task::Entry task = nullptr;
  std::uint64_t start_size = 0;
};

void run_start_then_task(ChildInterface& child, Reader& callables) {
  StartHead head;
  callables.read(&head, sizeof head);
  Reader start(callables.read(static_cast<std::size_t>(head.start_size)));
  head.start(start);
  head.task(child, callables);
}

}  // namespace

Task with_start(Task task, const StartTask& start) {
  const StartHead head{start.entry(), task.entry, start.callable().size()};
  std::string callables(reinterpret_cast<const char*>(&head), sizeof head);
  callables.append(start.callable()).append(task.callable);
  // The warm-up of spare children, and the check for late libraries, look for them.
  task.functions.push_back(reinterpret_cast<AnyFunction>(task.entry));
  task.functions.push_back(reinterpret_cast<AnyFunction>(start.entry()));
  task.functions.insert(task.functions.end(), start.functions().begin(), start.functions().end());
  task.entry = &run_start_then_task;
  task.callable = std::move(callables);
  return task;
}

}  // namespace evparallel::detail
