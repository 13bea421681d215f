// birth.cpp - keeps what a child inherits.
// Runs in: child.  Licence: see COPYING.
#include "child/birth.hpp"

#include "base/startup_path.hpp"

#include <new>
#include <utility>

namespace evparallel {

namespace {

alignas(Inheritance) char place[sizeof(Inheritance)];
Inheritance* kept = nullptr;

}  // namespace

EVPARALLEL_EARLY void keep_inheritance(ChildArgs& spawn) noexcept {
  kept = new (place) Inheritance{OwnerProcess::here(), spawn.snapshot, spawn.slots,
                                 spawn.notes,          spawn.modules,  std::move(spawn.rendezvous)};
}

Inheritance* take_inheritance() noexcept {
  return std::exchange(kept, nullptr);
}

}  // namespace evparallel
