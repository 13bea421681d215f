// hooks.cpp - lists of hooks, inherited from the snapshot.
// Runs in: child.  Licence: see COPYING.
#include "child/hooks.hpp"

#include "base/startup_path.hpp"
#include "system/fork.hpp"
#include "system/process_lock.hpp"
#include "codec/remote_error.hpp"

#include <evparallel/child_hooks.hpp>

#include <stdexcept>
#include <utility>
#include <vector>

namespace evparallel {

namespace detail {

namespace {

using Hooks = std::vector<Callback<void()>>;

// Null while there are no hooks.  Never destroyed: a child may call them after its static objects
// have been destroyed.
Hooks* start_hooks = nullptr;
Hooks* exit_hooks = nullptr;

void add(Hooks*& to, Callback<void()> hook) {
  const ProcessLock lock;
  if (!to) to = new Hooks;
  to->push_back(std::move(hook));
}

}  // namespace

EVPARALLEL_EARLY void call_start_hooks() {
  if (!start_hooks) return;
  for (Callback<void()>& hook : *start_hooks) hook();
}

EVPARALLEL_EARLY std::optional<Error> call_exit_hooks() noexcept {
  std::optional<Error> error;
  while (exit_hooks && !exit_hooks->empty()) {
    Callback<void()> hook = std::move(exit_hooks->back());
    exit_hooks->pop_back();
    try {
      hook();
    } catch (...) {
      end_if_thread_leaves();
      if (!error) error = current_exception_as_remote();
    }
  }
  return error;
}

}  // namespace detail

using namespace detail;

void at_child_start(Callback<void()> hook) {
  if (role() == Role::child)
    throw std::logic_error(
        "evparallel: at_child_start() was called in a child, which has already started");
  add(start_hooks, std::move(hook));
}

void at_child_exit(Callback<void()> hook) {
  add(exit_hooks, std::move(hook));
}

}  // namespace evparallel
