// replica.cpp - forks a replica, and makes it a snapshot of its own.
// Runs in: snapshot.  Licence: see COPYING.  Manual: evparallel_protocol(7).
#include "snapshot/replica.hpp"

#include "system/process_title.hpp"
#include "system/socket.hpp"
#include "codec/wire.hpp"

#include <cerrno>
#include <cstring>

namespace evparallel::detail {

Forked fork_sibling_of(const ServerStart& start) noexcept {
  return start.program.pid() != 0 ? fork_sibling() : Forked{-1, EINVAL};
}

namespace {

constexpr std::size_t descriptors_of_start = 3;

void report_fork(const OwnedFd& control, const Forked& replica) noexcept {
  Report report{};
  report.kind = ReportKind::replica_forked;
  report.slot = no_slot;
  report.pid = replica.pid;
  report.code = replica.error;
  send_packet(control.get(), &report, sizeof report, -1);
}

}  // namespace

// The register of descriptors has all of this process: those of its children that are on their way,
// of its clients, of its signals.  The copy closes them at once, because a second holder of a socket
// hides its end.
bool fork_replica(ServerStart& start, OwnedFd control) noexcept {
  const Forked replica = fork_sibling_of(start);
  if (replica.pid != 0) {
    report_fork(control, replica);
    control.close();
    return false;
  }
  close_registered_except({control.get()});
  start.control = std::move(control);
  return true;
}

int become_replica(ServerStart& start) noexcept {
  if (!become_snapshot(start.program.pid())) return ESRCH;
  ReplicaStart given{};
  Packet packet = receive_packet(start.control.get(), &given, sizeof given);
  if (packet.flow != IoResult::done || packet.size != sizeof given) return EPROTO;
  if (packet.count != descriptors_of_start) return EMFILE;
  Slot* const slots = map_slots_of(packet.along.get());
  start.rendezvous = packet.others[0].take();
  start.rendezvous_child = packet.others[1].take();
  packet.close();
  if (!slots) return ENOMEM;
  unmap_slots(start.slots);
  start.slots = slots;
  start.siblings = 0;
  if (given.renamed != 0)
    rename_snapshot_title({given.name, ::strnlen(given.name, sizeof given.name)});
  return 0;
}

}  // namespace evparallel::detail
