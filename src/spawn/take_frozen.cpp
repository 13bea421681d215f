// take_frozen.cpp - a frozen snapshot, as its program takes it: waits until it is frozen, and has
// its replicas forked from it.
// Runs in: parent.  Licence: see COPYING.
#include "snapshot/freeze_handshake.hpp"
#include "spawn/replicas.hpp"

namespace evparallel {

namespace {

Error no_socket(int error) {
  return system_error(Errc::spawn_failed, "spawn failed: no socket pair for a snapshot", error);
}

}  // namespace

std::vector<std::shared_ptr<SnapshotEntry>> SnapshotEntry::take_frozen(
    std::shared_ptr<Moment> moment, const SnapshotOptions& options) {
  if (const std::optional<Error> why = why_not_frozen()) throw *why;
  std::vector<std::shared_ptr<SnapshotEntry>> all;
  for (unsigned i = 0; i < options.replicas; ++i) {
    all.emplace_back(new SnapshotEntry(moment));
    all.back()->map_own_slots();
  }
  SnapshotEntry& first = *all.front();
  first.fork_server(options);
  moment->frozen = first.hear_of_freezing().outcome.bytes;
  for (std::size_t i = 1; i < all.size(); ++i) all[i]->fork_from(first);
  for (const auto& one : all) one->hear_of_beginning();
  return all;
}

FreezeTold SnapshotEntry::hear_of_freezing() {
  FreezeTold told{};
  const Packet packet = wait_for_word(&told, sizeof told);
  if (packet.flow != Flow::done) told.outcome = {FreezeStep::end, 0, 0};
  if (told.outcome.failed_at == FreezeStep::none) return told;
  const std::string how = wait_for_end();
  if (packet.flow == Flow::done) throw error_of(told.outcome);
  throw Error(Errc::spawn_failed, error_of(told.outcome).what() + how);
}

void SnapshotEntry::fork_from(SnapshotEntry& first) {
  Descriptor ours;
  Descriptor theirs;
  if (const int error = make_pair(PairKind::packets, ours, theirs)) throw no_socket(error);
  const SiblingWanted wanted{slots_};
  const bool sent =
      send_packet(first.client_.fd(), &wanted, sizeof wanted, theirs.get()) == Flow::done;
  theirs.drop();
  if (!sent) throw first.is_dead();
  adopt(first.hear_of_freezing().pid, std::move(ours));
  hear_of_freezing();
}

}  // namespace evparallel
