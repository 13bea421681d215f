// hooks.cpp - lists of hooks, inherited with everything else.
// Licence: see COPYING.
#include "hooks.hpp"

#include "fork.hpp"
#include "remote_error.hpp"

#include <evparallel/child.hpp>

#include <stdexcept>
#include <utility>
#include <vector>

namespace evparallel {

namespace {

using Hooks = std::vector<Callback<void()>>;

// Never destroyed: a child calls them after its static objects, if need be.
Hooks& start_hooks() {
  static auto* hooks = new Hooks;
  return *hooks;
}
Hooks& exit_hooks() {
  static auto* hooks = new Hooks;
  return *hooks;
}

}  // namespace

void call_start_hooks() {
  for (Callback<void()>& hook : start_hooks()) hook();
}

std::optional<Error> call_exit_hooks() noexcept {
  std::optional<Error> error;
  Hooks& hooks = exit_hooks();
  while (!hooks.empty()) {
    Callback<void()> hook = std::move(hooks.back());
    hooks.pop_back();
    try {
      hook();
    } catch (...) {
      if (!error) error = current_exception_as_remote();
    }
  }
  return error;
}

void at_child_start(Callback<void()> hook) {
  if (role() == Role::child)
    throw std::logic_error("evparallel: at_child_start() in a child, which has started already");
  start_hooks().push_back(std::move(hook));
}

void at_child_exit(Callback<void()> hook) {
  exit_hooks().push_back(std::move(hook));
}

}  // namespace evparallel
