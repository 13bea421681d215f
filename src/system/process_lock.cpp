// process_lock.cpp - the locks of a process, and its forks.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/process_lock.hpp"

#include "base/startup_path.hpp"

#include <pthread.h>
#include <sys/single_threaded.h>

#include <new>

namespace evparallel::detail {

namespace {

std::mutex lists;
std::mutex snapshots;

// Never destroyed, because handles in static storage may use it.
alignas(std::recursive_mutex) char storage[sizeof(std::recursive_mutex)];

std::recursive_mutex& closed_loops() {
  static auto* const lock = new (storage) std::recursive_mutex;
  return *lock;
}

void (*called_in_child)() noexcept = nullptr;

void lock_all() {
  closed_loops().lock();
  snapshots.lock();
  lists.lock();
}

void unlock_all() {
  lists.unlock();
  snapshots.unlock();
  closed_loops().unlock();
}

// The recursive one cannot be released here: its owner is a thread of the other process.
void unlock_all_in_child() {
  called_in_child();
  lists.unlock();
  snapshots.unlock();
  new (storage) std::recursive_mutex;
}

}  // namespace

EVPARALLEL_EARLY ProcessLock::ProcessLock() : guard_(lists, std::defer_lock) {
  if (!__libc_single_threaded) guard_.lock();
}

EVPARALLEL_EARLY SnapshotsLock::SnapshotsLock() : guard_(snapshots, std::defer_lock) {
  if (!__libc_single_threaded) guard_.lock();
}

ClosedLoopLock::ClosedLoopLock() : guard_(closed_loops()) {}

EVPARALLEL_EARLY void hold_locks_during_forks(void (*in_child)() noexcept) noexcept {
  called_in_child = in_child;
  ::pthread_atfork(&lock_all, &unlock_all, &unlock_all_in_child);
}

}  // namespace evparallel::detail
