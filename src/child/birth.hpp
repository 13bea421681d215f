// birth.hpp - what a child was born with, as far as it serves to ask for children of its own.
// Runs in: child.  Licence: see COPYING.
//
// Most children never ask: then it is only kept.
#pragma once

#include "system/fork.hpp"
#include "snapshot/server.hpp"

#include <memory>

namespace evparallel {

struct ChildBirth {
  Home child;
  pid_t snapshot = 0;
  Slot* slots = nullptr;
  Notes* notes = nullptr;
  const std::shared_ptr<const Modules>* modules = nullptr;
  Descriptor door;
};

// In a fresh child, which keeps the door.
void keep_birth(Spawn&) noexcept;
// What was kept, once; after that, and in a process that is no child, nullptr.  It stays where it is.
ChildBirth* take_birth() noexcept;

}  // namespace evparallel
