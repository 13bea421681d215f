// child_hooks.hpp - hooks in each child of a program, and a seed for each child.
// Licence: see COPYING.  Manual: evparallel_child(3).
#pragma once

#include <evparallel/callback.hpp>
#include <evparallel/detail/export.hpp>

#include <cstdint>

namespace evparallel {

// In a child: a number that no other child has, for the seeds of generators; with
// SnapshotOptions::seed it is the same in each run of the program.  srandom(), rand() and drand48()
// are seeded with it already.
// Fails: std::logic_error in a process that is no child.
EVPARALLEL_API std::uint64_t child_seed();

// Calls `hook` in each child of the snapshots that are taken from now on, before its task, in the
// order of registration.  An exception of the hook has the effect of an exception of the task.
// Fails: std::logic_error in a child, which has started already.
EVPARALLEL_API void at_child_start(Callback<void()> hook);

// Calls `hook` when the child ends by itself: its task has returned or thrown, or has called
// exit().  Hooks are called in reverse order.  A hook that is registered in a child is for that
// child only.  After an exception of a hook the exit status is 70; the other hooks are still
// called.
EVPARALLEL_API void at_child_exit(Callback<void()> hook);

namespace this_child {

// In the task of a process or of a supervisor, before exec(3): writes all output and messages, and
// closes the pipe, so that the child may run another program for any time.  on_exit reports how
// that ended.
// Fails: std::logic_error elsewhere.
EVPARALLEL_API void will_exec();

}  // namespace this_child

}  // namespace evparallel
