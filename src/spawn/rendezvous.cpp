// rendezvous.cpp - the end of a process that several Reactors use.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/rendezvous.hpp"

#include <utility>

namespace evparallel::detail {

Rendezvous::~Rendezvous() {
  close();
}

// A child has the slots from the snapshot, for as long as it lives.
void Rendezvous::close() noexcept {
  socket.close();
  Slot* const mapped = std::exchange(slots, nullptr);
  if (mapped && home_.is_here() && role() == Role::parent) unmap_slots(mapped);
}

bool Rendezvous::has_ended(Reaped& how) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (!how_) {
    Reaped found;
    if (!ended(pid(), found)) return false;
    how_ = found;
  }
  how = *how_;
  return true;
}

}  // namespace evparallel::detail
