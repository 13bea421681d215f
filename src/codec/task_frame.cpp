// task_frame.cpp - writes and reads the task frame.
// Runs in: parent, child.  Licence: see COPYING.
#include "codec/task_frame.hpp"

#include "base/startup_path.hpp"

namespace evparallel::detail {

void write_task_frame(Writer& out, TaskFrame head, const std::string& environment,
                      const std::string& callable) {
  head.environment = environment.size();
  out.write(&head, sizeof head);
  out.write(environment);
  out.write(callable);
}

EVPARALLEL_EARLY TaskFrame read_task_frame(Reader& in) {
  TaskFrame head;
  in.read(&head, sizeof head);
  return head;
}

}  // namespace evparallel::detail
