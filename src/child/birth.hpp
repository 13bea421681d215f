// birth.hpp - what a child was born with, as far as it serves to ask for children of its own.
// Runs in: child.  Licence: see COPYING.
//
// Most children never ask: then it is only kept.
#pragma once

#include "system/fork.hpp"
#include "snapshot/server.hpp"

#include <memory>

namespace evparallel {

struct Inheritance {
  OwnerProcess child;
  pid_t snapshot = 0;
  Slot* slots = nullptr;
  CancelTable* notes = nullptr;
  const std::shared_ptr<const Modules>* modules = nullptr;
  OwnedFd rendezvous;
};

// In a fresh child, which keeps the door.
void keep_inheritance(ChildArgs&) noexcept;
// What was kept, once; after that, and in a process that is no child, nullptr.  It stays where it is.
Inheritance* take_inheritance() noexcept;

}  // namespace evparallel
