// snapshot_process_replica.cpp - a process of a snapshot that a living one forks: its request, and
// its start.
// Runs in: parent.  Licence: see COPYING.  Manual: evparallel_protocol(7).
#include "system/polling.hpp"
#include "system/process_lock.hpp"
#include "system/socket.hpp"
#include "spawn/snapshot_process.hpp"

#include <cerrno>
#include <cstring>
#include <iterator>

namespace evparallel::detail {

namespace {

constexpr const char* cannot =
    "spawn failed: a process of the snapshot could not be forked from a living one";

}  // namespace

// The children of a clone, or of another Reactor, get other seeds than those of the original.
std::shared_ptr<SnapshotShared> SnapshotShared::cloned(const std::string* wanted) {
  const auto copy = std::make_shared<SnapshotShared>();
  copy->name = wanted ? *wanted : name;
  copy->replicas = replicas;
  copy->modules = modules;
  copy->cancel_table = cancel_table;
  copy->origin = origin ? origin : shared_from_this();
  copy->frozen = frozen;
  const ProcessLock lock;
  copy->seed = seed_of_child(~copy->origin->seed, ++copy->origin->clones);
  copy->out_of_memory.watch();
  return copy;
}

// The control socket of the new process is the way of all reports about it, also of those of the
// process that forks it: so the order of two sockets does not matter, and the loss of either process
// is the end of one socket.
std::shared_ptr<SnapshotProcess> SnapshotProcess::fork_beside(
    SnapshotProcess& living, std::shared_ptr<SnapshotShared> shared, const std::string* name) {
  std::shared_ptr<SnapshotProcess> entry(new SnapshotProcess(std::move(shared)));
  OwnedFd ours;
  OwnedFd theirs;
  OwnedFd slots;
  OwnedFd served;
  if (const int error = make_pair(PairKind::packets, ours, theirs))
    throw system_error(Errc::spawn_failed, cannot, error);
  OwnedFd sender;
  if (const int error = make_rendezvous(served, sender))
    throw system_error(Errc::spawn_failed, cannot, error);
  entry->rendezvous_->socket = DupFd(std::move(sender));
  if (const int error = make_slots(slots)) throw system_error(Errc::spawn_failed, cannot, error);
  entry->rendezvous_->slots = map_slots_of(slots.get());
  if (!entry->rendezvous_->slots) throw system_error(Errc::spawn_failed, cannot, ENOMEM);
  entry->client_ = ControlClient(std::move(ours));
  entry->serves_ = false;
  entry->state_ = State::connected;
  if (!entry->send_start(slots, served, name) ||
      !living.ask(request_of(RequestKind::fork_replica), std::move(theirs)))
    throw Error(Errc::overloaded, "overloaded: too many requests are waiting for the snapshot");
  living.send_now();
  served.close();
  return entry;
}

// A new socket has room for it, unless too many descriptors are on their way.
bool SnapshotProcess::send_start(const OwnedFd& slots, const OwnedFd& served,
                                 const std::string* name) {
  ReplicaStart start{};
  start.renamed = name ? 1 : 0;
  if (name) name->copy(start.name, sizeof start.name - 1);
  const int along[] = {slots.get(), served.get(), rendezvous_->socket.get()};
  return send_packet(client_.fd(), &start, sizeof start, along, std::size(along)) == IoResult::done;
}

// Without a loop nothing else would send what is queued.
void SnapshotProcess::send_now() {
  constexpr int patience_ms = 1000;
  if (client_.idle() || (loop_ && loop_->alive())) return;
  pollfd control{client_.fd(), POLLOUT, 0};
  for (int pauses = 0; !client_.flush();) {
    if (!client_.must_retry()) {
      if (wait_for(&control, 1, patience_ms) <= 0) return;
    } else {
      if (++pauses > patience_ms) return;
      pause_for(1);
    }
  }
}

// Reports of the new process, and of the one that has forked it.
void SnapshotProcess::take_start(const Report& report) {
  if (serves_) return;
  if (report.pid > 0 && pid() == 0) {
    rendezvous_->set_pid(report.pid);
    make_group(report.pid);
  }
  if (report.code != 0) {
    start_error_ = report.code;  // the end of the socket follows
    return;
  }
  if (report.kind != ReportKind::begun) return;
  serves_ = true;
  const std::shared_ptr<ReplicaObserver> observer = observer_.lock();
  if (!observer) return;
  try {
    observer->on_serving(*this);
  } catch (...) {
    serves_ = false;  // the report is handled again
    throw;
  }
}

Error SnapshotProcess::was_not_forked() const {
  if (start_error_ != 0) return system_error(Errc::spawn_failed, cannot, start_error_);
  return Error(Errc::snapshot_lost,
               "snapshot lost: the process that was to fork another one beside it is dead");
}

}  // namespace evparallel::detail
