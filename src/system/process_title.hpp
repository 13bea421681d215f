// process_title.hpp - what ps(1) and top(1) show of a snapshot and of a child.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// The command line is shown from memory of ours.  The program's own, where others would write such a
// title, stays as it is: a task may hold pointers into its arguments.
#pragma once

#include <string_view>

namespace evparallel {

// Where the title stands.  On the stack of a function that never returns: children have that page to
// themselves anyway, so theirs cost no memory.
struct ProcessTitle {
  char text[256];
};

// In a fresh snapshot: "PROGRAM: snapshot [NAME]"; its short name is NAME, or "snapshot".
// Requires: the place lasts as long as the process, and is no static object: the kernel shows
// anonymous memory alone.
void set_snapshot_title(ProcessTitle& place, std::string_view name) noexcept;
// In a fresh child: "PROGRAM: TASK [NAME OF THE SNAPSHOT]"; its short name is that of the task, or
// the program's.
void set_child_title(std::string_view task) noexcept;

}  // namespace evparallel
