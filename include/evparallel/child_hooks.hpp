// child_hooks.hpp - what each child of a program does and is given: hooks, and a seed of its own.
// Licence: see COPYING.  Manual: evparallel_child(3).
#pragma once

#include <evparallel/callback.hpp>
#include <evparallel/detail/export.hpp>

#include <cstdint>

namespace evparallel {

// In a child: a number that no other child has, to seed generators with; with SnapshotOptions::seed
// it is the same in each run of the program.  srandom(), rand() and drand48() are seeded with it
// already.
// Fails: std::logic_error in a process that is no child.
EVPARALLEL_API std::uint64_t child_seed();

// Calls `hook` in each child of the snapshots that are taken from now on, before its task, in the
// order of registration.  What it throws is as if the task had thrown it.
// Fails: std::logic_error in a child, where it would be too late.
EVPARALLEL_API void at_child_start(Callback<void()> hook);

// Calls `hook` when the child ends by itself: its task has returned or thrown, or called exit(); in
// reverse order.  Registered in a child, it is for that child.  What it throws makes the exit status
// 70; the other hooks are called all the same.
EVPARALLEL_API void at_child_exit(Callback<void()> hook);

namespace this_child {

// In the task of a process, before exec(3): writes what was printed and sent, and closes the pipe, so
// that the child may go on as another program for as long as that takes.  on_exit tells how it ended.
// Fails: std::logic_error elsewhere.
EVPARALLEL_API void will_exec();

}  // namespace this_child

}  // namespace evparallel
