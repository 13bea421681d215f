// birth.cpp - keeps what a child inherits.
// Runs in: child.  Licence: see COPYING.
#include "child/birth.hpp"

#include "base/startup_path.hpp"

#include <new>
#include <utility>

namespace evparallel::detail {

namespace {

alignas(Inheritance) char storage[sizeof(Inheritance)];
Inheritance* kept = nullptr;

}  // namespace

EVPARALLEL_EARLY void keep_inheritance(ChildArgs& spawn) noexcept {
  kept =
      new (storage) Inheritance{OwnerProcess::here(), spawn.snapshot, spawn.slots,
                                spawn.cancel_table,   spawn.modules,  std::move(spawn.rendezvous)};
}

Inheritance* take_inheritance() noexcept {
  return std::exchange(kept, nullptr);
}

}  // namespace evparallel::detail
