// replicas.hpp - the processes that one snapshot consists of: they stand in for each other.
// Runs in: parent.  Licence: see COPYING.
//
// Each has a control socket and slots of its own, since a slot is a place in the table of one
// process; they share the notes, whose owners are unique whoever forks them.  In a child there is
// one: the one that forked it.
#pragma once

#include "spawn/snapshot_process.hpp"

#include <vector>

namespace evparallel {

class Replicas {
public:
  // Forks them.  Fails: Error, and none is left; std::logic_error.
  static std::shared_ptr<Replicas> take(const SnapshotOptions&);
  // Those that `chosen` names, or the default ones.  Fails: Error{no_snapshot}.
  static std::shared_ptr<Replicas> choose(const Snapshot* chosen);
  // In a child: from now on choose() knows the snapshot that forked it.  Done at the first use, which most
  // children do not come to.
  static void use_birth();

  // The one that is to fork the next child: each in turn, of those that live.  Where none does, one
  // that says so.  From now on this loop is the one that hears of all of them.
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
  CancelTable& notes() const noexcept { return *shared_->notes; }
  const Modules& modules() const noexcept { return *shared_->modules; }

private:
  explicit Replicas(std::shared_ptr<SnapshotShared> shared) noexcept : shared_(std::move(shared)) {}
  Error another_process_has_it() const;

  std::shared_ptr<SnapshotShared> shared_;
  std::vector<std::shared_ptr<SnapshotProcess>> all_;  // never empty
  std::size_t turn_ = 0;
};

}  // namespace evparallel
