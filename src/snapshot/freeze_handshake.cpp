// freeze_handshake.cpp - the first moments of a frozen snapshot.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/freeze_handshake.hpp"

#include "system/fork.hpp"
#include "system/polling.hpp"
#include "system/socket.hpp"

#include <cerrno>

namespace evparallel {

namespace {

bool program_lives(const void* start) {
  return static_cast<const ServerStart*>(start)->program.lives();
}

bool tell(const ServerStart& start, const FreezeOutcome& outcome, pid_t pid) noexcept {
  const FreezeReply told{outcome, pid, 0};
  return send_packet(start.control.get(), &told, sizeof told, -1) == IoResult::done;
}

// The end of the socket may be hidden by a stranger's copy of the other one.
Packet wait_for_word(const ServerStart& start, ForkReplicaRequest& wanted) noexcept {
  constexpr int look_ms = 100;
  for (;;) {
    pollfd control{start.control.get(), POLLIN, 0};
    wait_for(&control, 1, look_ms);
    Packet packet = receive_packet(start.control.get(), &wanted, sizeof wanted);
    if (packet.flow != IoResult::would_block || !start.program.lives()) return packet;
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
  return become_snapshot(start.program.pid()) && tell(start, outcome, 0);
}

// In a pid namespace that cannot see the program no process can be forked as the program's own.
Forked fork_sibling_of(const ServerStart& start) noexcept {
  return start.program.pid() != 0 ? fork_sibling() : Forked{-1, EINVAL};
}

}  // namespace

bool become_frozen(ServerStart& start) noexcept {
  const FreezeOutcome outcome = freeze(program_lives, &start);
  if (!tell(start, outcome, 0) || outcome.failed_at != FreezeStep::none) return false;
  for (; start.siblings > 0; --start.siblings) {
    ForkReplicaRequest wanted{};
    Packet packet = wait_for_word(start, wanted);
    if (packet.flow != IoResult::done || packet.size != sizeof wanted) return false;
    FreezeOutcome forked = outcome;
    const Forked sibling = packet.along ? fork_sibling_of(start) : Forked{-1, EMFILE};
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
