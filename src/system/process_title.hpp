// process_title.hpp - the titles of a snapshot and of a child in ps(1) and top(1).
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// The command line is shown from memory of the library.  The program's own arguments, where other
// libraries write such a title, stay as they are: a task may hold pointers into them.
#pragma once

#include <string_view>

namespace evparallel::detail {

// The memory of the title.  It is on the stack of a function that never returns: children have that
// page to themselves anyway, so their titles cost no memory.
struct ProcessTitle {
  char text[256];
};

// In a new snapshot: "PROGRAM: snapshot [NAME]"; its short name is NAME, or "snapshot".
// Requires: `storage` lasts as long as the process, and is no static object: the kernel shows only
// anonymous memory.
void set_snapshot_title(ProcessTitle& storage, std::string_view name) noexcept;
// In a copy of a snapshot that becomes the snapshot of another name.
void rename_snapshot_title(std::string_view name) noexcept;
// In a new child: "PROGRAM: TASK [NAME OF THE SNAPSHOT]"; its short name is that of the task, or
// the program's.
void set_child_title(std::string_view task) noexcept;

}  // namespace evparallel::detail
