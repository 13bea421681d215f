// replicas.hpp - the processes of one snapshot, any of which can fork a child.
// Runs in: parent.  Licence: see COPYING.
//
// Each has a control socket and slots of its own, because a slot is an index into the table of one
// process.  They share the cancel table, whose owner ids are unique whichever process forks the
// child.  In a child there is one process: the snapshot that forked it.
#pragma once

#include "spawn/snapshot_process.hpp"

#include <vector>

namespace evparallel::detail {

class Replicas {
public:
  // Forks them.  Fails: Error, and none is left; std::logic_error.
  static std::shared_ptr<Replicas> take(const SnapshotOptions&);
  // The processes of `chosen`, or those of the default snapshot.  Fails: Error{no_snapshot}.
  static std::shared_ptr<Replicas> choose(const Snapshot* chosen);
  // In a child: makes the snapshot that forked it known to choose().  Called at the first use,
  // because most children never use it.
  static void use_inheritance();

  // The process that forks the next child: the living ones in rotation.  If none lives, one that
  // reports it.  From now on this loop receives the reports of all of them.
  // Fails: std::logic_error if another reactor uses this snapshot.
  const std::shared_ptr<SnapshotProcess>& next(const std::shared_ptr<Loop>&);

  bool is_at_home() const noexcept { return shared_->home.is_here(); }
  bool alive() const noexcept;
  pid_t pid() const noexcept { return all_.front()->pid(); }
  std::vector<pid_t> pids() const;
  std::uint64_t orphans() const noexcept;
  std::uint64_t frozen() const noexcept { return shared_->frozen; }
  void stop() noexcept;
  void on_lost(Callback<void(const ExitStatus&)>);
  CancelTable& cancel_table() const noexcept { return *shared_->cancel_table; }
  const Modules& modules() const noexcept { return *shared_->modules; }

private:
  explicit Replicas(std::shared_ptr<SnapshotShared> shared) noexcept : shared_(std::move(shared)) {}
  Error another_process_has_it() const;

  std::shared_ptr<SnapshotShared> shared_;
  std::vector<std::shared_ptr<SnapshotProcess>> all_;  // never empty
  std::size_t turn_ = 0;
};

}  // namespace evparallel::detail
