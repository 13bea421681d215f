// take_frozen.cpp - the parent's side of a frozen snapshot: waits for it, and requests its
// replicas.
// Runs in: parent.  Licence: see COPYING.
#include "snapshot/freeze_handshake.hpp"
#include "spawn/replicas.hpp"

#include <iterator>

namespace evparallel::detail {

namespace {

Error no_socket(int error) {
  return system_error(Errc::spawn_failed,
                      "spawn failed: the socket pair for a snapshot could not be created", error);
}

}  // namespace

std::vector<std::shared_ptr<SnapshotProcess>> SnapshotProcess::take_frozen(
    std::shared_ptr<SnapshotShared> shared, const SnapshotOptions& options) {
  if (const std::optional<Error> why = why_not_frozen()) throw *why;
  std::vector<std::shared_ptr<SnapshotProcess>> all;
  for (unsigned i = 0; i < shared->replicas; ++i) {
    all.emplace_back(new SnapshotProcess(shared));
    all.back()->map_own_slots();
  }
  SnapshotProcess& first = *all.front();
  first.fork_server(options);
  shared->frozen = first.wait_until_frozen().outcome.bytes;
  for (std::size_t i = 1; i < all.size(); ++i) all[i]->fork_from(first);
  for (const auto& one : all) one->wait_until_serving();
  return all;
}

FreezeReply SnapshotProcess::wait_until_frozen() {
  FreezeReply reply{};
  const Packet packet = wait_for_word(&reply, sizeof reply);
  if (packet.flow != IoResult::done) reply.outcome = {FreezeStep::end, 0, 0};
  if (reply.outcome.failed_at == FreezeStep::none) return reply;
  const std::string how = wait_for_end();
  throw error_of(reply.outcome, how);
}

void SnapshotProcess::fork_from(SnapshotProcess& first) {
  OwnedFd ours;
  OwnedFd theirs;
  OwnedFd served;
  OwnedFd sender;
  if (const int error = make_pair(PairKind::packets, ours, theirs)) throw no_socket(error);
  if (const int error = make_rendezvous(served, sender)) throw no_socket(error);
  rendezvous_->socket = DupFd(std::move(sender));
  const ForkReplicaRequest wanted{rendezvous_->slots};
  const int along[] = {theirs.get(), served.get(), rendezvous_->socket.get()};
  const bool sent = send_packet(first.client_.fd(), &wanted, sizeof wanted, along,
                                std::size(along)) == IoResult::done;
  theirs.close();
  served.close();
  if (!sent) throw first.is_dead();
  adopt(first.wait_until_frozen().pid, std::move(ours));
  wait_until_frozen();
}

}  // namespace evparallel::detail
