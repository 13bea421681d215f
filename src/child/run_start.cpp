// run_start.cpp - the entry of a task that runs Options::on_start first.
// Runs in: child.  Licence: see COPYING.
#include "child/run_start.hpp"

#include "codec/task_frame.hpp"

namespace evparallel::detail {

void run_start_then_task(ChildInterface& child, Reader& callables) {
  StartHead head;
  callables.read(&head, sizeof head);
  Reader start(callables.read(size_in_message(head.start_size)));
  head.start(start);
  head.task(child, callables);
}

}  // namespace evparallel::detail
