// freezing.cpp - the first moments of a frozen snapshot.
// Licence: see COPYING.
#include "freezing.hpp"

#include "fork.hpp"
#include "socket.hpp"
#include "waiting.hpp"

#include <cerrno>

namespace evparallel {

namespace {

bool parent_lives(const void* start) {
  return parent_is(static_cast<const ServerStart*>(start)->parent);
}

bool tell(const ServerStart& start, const FreezeOutcome& outcome, pid_t pid) noexcept {
  const FreezeTold told{outcome, pid, 0};
  return send_packet(start.control.get(), &told, sizeof told, -1) == Flow::done;
}

// The end of the socket may be hidden by a stranger's copy of the other one.
Packet wait_for_word(const ServerStart& start, SiblingWanted& wanted) noexcept {
  constexpr int look_ms = 100;
  for (;;) {
    pollfd control{start.control.get(), POLLIN, 0};
    wait_for(&control, 1, look_ms);
    Packet packet = receive_packet(start.control.get(), &wanted, sizeof wanted);
    if (packet.flow != Flow::again || !parent_lives(&start)) return packet;
  }
}

// It says that it is there once the socket of the first is the first's alone, whose end is to be
// heard.
bool become_sibling(ServerStart& start, Packet& packet, Slot* slots,
                    const FreezeOutcome& outcome) noexcept {
  close_registered_except(packet.along.get(), -1);
  start.control = std::move(packet.along);
  start.slots = slots;
  start.siblings = 0;
  return become_snapshot(start.parent) && tell(start, outcome, 0);
}

}  // namespace

bool become_frozen(ServerStart& start) noexcept {
  const FreezeOutcome outcome = freeze(parent_lives, &start);
  if (!tell(start, outcome, 0) || outcome.failed_at != FreezeStep::none) return false;
  for (; start.siblings > 0; --start.siblings) {
    SiblingWanted wanted{};
    Packet packet = wait_for_word(start, wanted);
    if (packet.flow != Flow::done || packet.size != sizeof wanted) return false;
    FreezeOutcome forked = outcome;
    const Forked sibling = packet.along ? fork_sibling() : Forked{-1, EMFILE};
    if (sibling.pid == 0) return become_sibling(start, packet, wanted.slots, outcome);
    if (sibling.pid < 0) {
      forked.failed_at = FreezeStep::fork;
      forked.error = sibling.error;
    }
    packet.drop();
    if (!tell(start, forked, sibling.pid) || sibling.pid < 0) return false;
  }
  return true;
}

}  // namespace evparallel
