// birth.hpp - what a child inherits to ask for children of its own.
// Runs in: child.  Licence: see COPYING.
//
// Most children never ask: then it is only kept.
#pragma once

#include "system/fork.hpp"
#include "snapshot/server.hpp"

#include <memory>

namespace evparallel::detail {

struct Inheritance {
  OwnerProcess child;
  pid_t snapshot = 0;
  Slot* slots = nullptr;
  CancelTable* cancel_table = nullptr;
  const std::shared_ptr<const Modules>* modules = nullptr;
  OwnedFd rendezvous;
};

// Keeps the rendezvous socket and the rest of it, in a new child.
void keep_inheritance(ChildArgs&) noexcept;
// Returns once what was kept; after that, and in a process that is no child, nullptr.  The object
// stays in place.
Inheritance* take_inheritance() noexcept;

}  // namespace evparallel::detail
