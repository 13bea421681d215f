// snapshot_process_begin.cpp - the start of a snapshot process: it serves, or reports why it
// cannot.
// Runs in: parent.  Licence: see COPYING.
#include "system/polling.hpp"
#include "system/socket.hpp"
#include "spawn/snapshot_process.hpp"

namespace evparallel::detail {

Packet SnapshotProcess::wait_for_word(void* word, std::size_t size) {
  for (;;) {
    pollfd control{client_.fd(), POLLIN, 0};
    wait_for(&control, 1, -1);
    Packet packet = receive_packet(client_.fd(), word, size);
    if (packet.flow != IoResult::would_block) return packet;
  }
}

void SnapshotProcess::wait_until_serving() {
  Report report{};
  const Packet packet = wait_for_word(&report, sizeof report);
  const bool has_reported = packet.flow == IoResult::done && report.kind == ReportKind::begun;
  if (has_reported && report.code == 0) {
    rendezvous_->knows_numbers = report.pid == pid();
    if (!rendezvous_->knows_numbers) client_.translate_numbers();
    return;
  }
  const std::string how = wait_for_end();
  if (has_reported)
    throw system_error(Errc::spawn_failed, "spawn failed: the snapshot could not start",
                       report.code);
  throw Error(Errc::spawn_failed, "spawn failed: the snapshot ended before it was ready" + how);
}

// The snapshot ends at once: it has reported why, or is dead already.
std::string SnapshotProcess::wait_for_end() {
  client_.close();
  constexpr int patience_ms = 2000;
  Reaped how;
  for (int i = 0; i < patience_ms && !reaped_; ++i) {
    reaped_ = rendezvous_->has_ended(how);
    if (!reaped_) pause_for(1);
  }
  return reaped_ ? ": " + loss_of(how).describe() : "";
}

}  // namespace evparallel::detail
