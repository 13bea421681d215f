// freeze_handshake.cpp - what a snapshot that freezes does before it serves.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/freeze_handshake.hpp"

#include "system/fork.hpp"
#include "system/polling.hpp"
#include "system/socket.hpp"
#include "snapshot/replica.hpp"

#include <cerrno>

namespace evparallel::detail {

namespace {

constexpr std::size_t descriptors_of_request = 3;

bool program_lives(const void* start) {
  return static_cast<const ServerStart*>(start)->program.lives();
}

bool send_reply(const ServerStart& start, const FreezeOutcome& outcome, pid_t pid) noexcept {
  const FreezeReply reply{outcome, pid, 0};
  return send_packet(start.control.get(), &reply, sizeof reply, -1) == IoResult::done;
}

// This polls whether the program lives: if another process holds a copy of the program's end of the
// socket, there is no end of file.
Packet wait_for_word(const ServerStart& start, ForkReplicaRequest& wanted) noexcept {
  constexpr int look_ms = 100;
  for (;;) {
    pollfd control{start.control.get(), POLLIN, 0};
    wait_for(&control, 1, look_ms);
    Packet packet = receive_packet(start.control.get(), &wanted, sizeof wanted);
    if (packet.flow != IoResult::would_block || !start.program.lives()) return packet;
  }
}

// The new process replies only after it has closed the socket of the first process: that socket
// must have no second holder, or its end would go unnoticed.
bool become_sibling(ServerStart& start, Packet& packet, Slot* slots,
                    const FreezeOutcome& outcome) noexcept {
  close_registered_except({packet.along.get(), packet.others[0].get(), packet.others[1].get()});
  start.control = std::move(packet.along);
  start.rendezvous = packet.others[0].take();
  start.rendezvous_child = packet.others[1].take();
  start.slots = slots;
  start.siblings = 0;
  return become_snapshot(start.program.pid()) && send_reply(start, outcome, 0);
}

}  // namespace

bool become_frozen(ServerStart& start) noexcept {
  const FreezeOutcome outcome = freeze(program_lives, &start);
  if (!send_reply(start, outcome, 0) || outcome.failed_at != FreezeStep::none) return false;
  for (; start.siblings > 0; --start.siblings) {
    ForkReplicaRequest wanted{};
    Packet packet = wait_for_word(start, wanted);
    if (packet.flow != IoResult::done || packet.size != sizeof wanted) return false;
    FreezeOutcome forked = outcome;
    const Forked sibling =
        packet.count == descriptors_of_request ? fork_sibling_of(start) : Forked{-1, EMFILE};
    if (sibling.pid == 0) return become_sibling(start, packet, wanted.slots, outcome);
    if (sibling.pid < 0) {
      forked.failed_at = FreezeStep::fork;
      forked.error = sibling.error;
    }
    packet.close();
    if (!send_reply(start, forked, sibling.pid) || sibling.pid < 0) return false;
  }
  return true;
}

}  // namespace evparallel::detail
