// failpoint.hpp - the places where a test can make a process end or an operation fail.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// Each place calls the hook, if there is one.  The hook is a pointer in plain memory: the snapshot
// and its children inherit what the program installs before it takes the snapshot, and a task may
// install a hook in its own process.  fault::arm() installs follow_plan(), fault::disarm() removes
// any hook.  The library's own tests install a hook of their own, which calls follow_plan(), too.
#pragma once

#include <evparallel/fault.hpp>

#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

// In the order in which a call passes them on its way to the child and back, and an end on its way
// to its observer.  The library passes all but those marked *, which are in the program's code: a
// codec, a task or a callback of a test passes them.
enum class Failpoint : std::uint8_t {
  run,                  // parent: run() or process() begins
  spawn,                // parent: it is about to ask for a child
  connect_to_snapshot,  // child: its first own request; it connects to the rendezvous socket
  ask,                  // parent: the request is made
  send,                 // parent: the request goes to the control socket
  sent,                 // parent: the request has gone
  encode,               // *both: a value is written
  put,          // both: a frame is queued; `value`: 1 for a message.  Error: it is truncated.
  write,        // both: queued bytes, or the next piece of them, go to the data socket
  written,      // both: nothing is queued any more
  turn,         // snapshot: it begins an iteration of its loop
  rendezvous,   // snapshot: a child has connected
  serve,        // snapshot: it has read a request
  fork,         // the process that forks: just before, with all signals blocked
  forked,       // the process that forks: just after
  child_main,   // child: its first step of its own
  read,         // both: bytes have arrived
  task,         // child: it knows its task and is about to enter it
  decode,       // *both: a value is read
  call,         // *child: the task is called
  finish,       // parent: an answer is matched to its call
  callback,     // *parent: the callback of the caller runs
  drain,        // child: its task is over, its output may not be written yet
  leave,        // child: all is written
  reap,         // snapshot: a child has been waited for
  report,       // snapshot: a report goes to a control socket
  take,         // parent: a report has been read
  exit_report,  // parent: it is known how a child ended
  ended,        // parent: and all that the child sent has been delivered
  // These are on neither way.
  control_socket,  // parent, snapshot: it gets its end of the control socket, `value`
  data_socket,     // child: it gets its end of the data socket, `value`
  try_fork,        // the process that forks; `value`: 1 for a child.  Error: the fork fails.
  freeze_copy,     // snapshot: a piece of memory is to be copied.  Error: there is no room.
  freeze_map,      // snapshot: the copy is to be mapped.  Error: the old mapping is lost.
};

// Returns 0, or the errno with which the operation at this failpoint fails.
using FailpointHook = int (*)(Failpoint, int value) noexcept;
extern FailpointHook failpoint_hook;

// Inline for the case that there is no hook: a child must not touch another page for a failpoint.
inline bool has_failpoint_hook() noexcept {
  return __builtin_expect(failpoint_hook != nullptr, false);
}
inline int fault_at(Failpoint failpoint, int value = 0) noexcept {
  return has_failpoint_hook() ? failpoint_hook(failpoint, value) : 0;
}

// The hook for the plan of the program.
int follow_plan(Failpoint, int value) noexcept;
// `child`: the number of a child, counted by its snapshot while there is a hook; 0: each child.
bool is_victim(fault::Victim, unsigned child) noexcept;
// The number of bytes of the truncated frame that are still sent.
std::size_t size_of_truncated_frame() noexcept;
[[noreturn]] void die_of_fault() noexcept;

}  // namespace evparallel::detail
