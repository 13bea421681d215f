// process_lock.hpp - the locks of what a process has only once: its lists of loops and of snapshots.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// No call takes them; making and destroying children, loops and snapshots do.  A fork of the program
// waits for them, so that the copy finds the lists whole.
#pragma once

#include <mutex>

namespace evparallel::detail {

// Holds the lock while it lives.  Not recursive: no callback and no destructor of the program runs
// under it.  A process with one thread, as most children are, does not touch the lock.
class ProcessLock {
public:
  ProcessLock();

private:
  std::unique_lock<std::mutex> guard_;
};

// Guards which snapshots a process has.  Comes before the ProcessLock, if a thread takes both.
class SnapshotsLock {
public:
  SnapshotsLock();

private:
  std::unique_lock<std::mutex> guard_;
};

// Serialises the end of objects whose loop is closed: then no thread owns what they share.
// Recursive, because such an object may own others.  Comes before the two others.
class ClosedLoopLock {
public:
  ClosedLoopLock();

private:
  std::lock_guard<std::recursive_mutex> guard_;
};

// From now on a fork of the program takes these locks before, and releases them afterwards; in the
// copy it first calls `in_child`.  Call it once.
void hold_locks_during_forks(void (*in_child)() noexcept) noexcept;

}  // namespace evparallel::detail
