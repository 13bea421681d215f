// birth.cpp - keeps what a child was born with.
// Runs in: child.  Licence: see COPYING.
#include "child/birth.hpp"

#include "base/startup_path.hpp"

#include <new>
#include <utility>

namespace evparallel {

namespace {

alignas(ChildBirth) char place[sizeof(ChildBirth)];
ChildBirth* kept = nullptr;

}  // namespace

EVPARALLEL_EARLY void keep_birth(Spawn& spawn) noexcept {
  kept = new (place) ChildBirth{Home::here(), spawn.snapshot, spawn.slots,
                                spawn.notes,  spawn.modules,  std::move(spawn.door)};
}

ChildBirth* take_birth() noexcept {
  return std::exchange(kept, nullptr);
}

}  // namespace evparallel
