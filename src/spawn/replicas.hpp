// replicas.hpp - the processes of one snapshot, any of which can fork a child, for one Reactor.
// Runs in: parent.  Licence: see COPYING.
//
// Each has a control socket and slots of its own, because a slot is an index into the table of one
// process.  They share the cancel table, whose owner ids are unique whichever process forks the
// child.  In a child there is one process: the snapshot that forked it.
//
// A process that is lost is replaced: a living one forks its successor.
//
// The Reactor that uses a snapshot first uses the object that the snapshot was taken with, and
// replaces lost processes.  Each other Reactor has an object of its own, which is joined to that
// one: it has control sockets of its own to the same processes.
#pragma once

#include "spawn/fork_limit.hpp"
#include "spawn/snapshot_process.hpp"

#include <vector>

namespace evparallel::detail {

// The processes of one snapshot, as all Reactors that use it know them.  Guarded by the ProcessLock.
struct OpenProcesses {
  std::vector<std::shared_ptr<Rendezvous>> all;
  bool stopped = false;
  std::uint64_t version = 0;  // of the two above
  std::weak_ptr<Loop> user;   // the loop of the object that is not joined
  struct Joined {
    std::weak_ptr<Replicas> replicas;
    std::weak_ptr<Loop> loop;
  };
  std::vector<Joined> joined;
};

class Replicas final : public ReplicaObserver, public std::enable_shared_from_this<Replicas> {
public:
  // Forks them.  Fails: Error, and none is left; std::logic_error.
  static std::shared_ptr<Replicas> take(const SnapshotOptions&);
  // The processes of `chosen`, or those of the default snapshot, for this loop.  Any thread.
  // Fails: Error{no_snapshot}.
  static std::shared_ptr<Replicas> choose(const Snapshot* chosen, const std::shared_ptr<Loop>&);
  ~Replicas();
  // In a child: makes the snapshot that forked it known to choose().  Called at the first use,
  // because most children never use it.
  static void use_inheritance();

  // The process that forks the next child: the living ones in rotation.  If none lives, one that
  // reports it.  From now on this loop receives the reports of all of them.
  // Requires: it is the loop of choose().
  const std::shared_ptr<SnapshotProcess>& next(const std::shared_ptr<Loop>&);

  // The functions below are for the thread of its loop.  Fails: std::logic_error in another one.
  void check_thread() const;
  bool is_at_home() const noexcept { return shared_->home.is_here(); }
  bool alive() const;
  pid_t pid() const;
  std::vector<pid_t> pids() const;
  std::uint64_t orphans() const;
  std::uint64_t frozen() const noexcept { return shared_->frozen; }
  void stop() noexcept;  // any thread
  void on_lost(Callback<void(const ExitStatus&)>);
  // Does not wait.  `name`: the name of the clone; null: the same one.  Fails: as Snapshot::clone().
  std::shared_ptr<Replicas> clone(const std::string* name);
  CancelTable& cancel_table() const noexcept { return *shared_->cancel_table; }
  const Modules& modules() const noexcept { return *shared_->modules; }

private:
  // A process, and once it is lost the one that will take its place.
  struct Place {
    std::shared_ptr<SnapshotProcess> process;    // never null
    std::shared_ptr<SnapshotProcess> successor;  // does not serve yet; mostly null
  };

  explicit Replicas(std::shared_ptr<SnapshotShared> shared) noexcept : shared_(std::move(shared)) {}
  static std::shared_ptr<Replicas> chosen_one(const Snapshot*);
  std::shared_ptr<Replicas> for_loop(const std::shared_ptr<Loop>&);
  std::shared_ptr<Replicas> join(const std::shared_ptr<Loop>&);
  bool claim(const std::shared_ptr<Loop>&);
  std::shared_ptr<Loop> user() const;
  void publish();
  void refresh();
  bool has_changed() const;
  bool is_over() const;
  void stop_here() noexcept;
  Error another_process_has_it() const;
  void add(std::shared_ptr<SnapshotProcess>);
  void inform(SnapshotProcess&);
  void replace(Place&);
  std::size_t active() const noexcept { return places_.size() - (standby_ ? 1 : 0); }
  bool use_standby(Place&);
  void refuse_clone() const;
  void on_serving(SnapshotProcess&) override;
  void on_loss(SnapshotProcess&) override;
  void fill_places();
  void fill(Place&);
  std::size_t living() const noexcept;
  SnapshotProcess* one_to_fork_from() const noexcept;

  std::shared_ptr<SnapshotShared> shared_;
  std::shared_ptr<OpenProcesses> open_ = std::make_shared<OpenProcesses>();
  bool joined_ = false;        // to another object, which has the same open_
  std::uint64_t seen_ = 0;     // of a joined one: the version of open_
  std::vector<Place> places_;  // never empty
  std::size_t turn_ = 0;
  bool standby_ = false;  // the last place is that of the standby
  unsigned spares_ = 0;   // of each process
  bool stopped_ = false;
  std::shared_ptr<CallbackSlot<void(const ExitStatus&)>> on_lost_;  // null: none is set
  // Processes that were replaced and whose loss is still to be reported, the newest ones.
  std::vector<std::shared_ptr<SnapshotProcess>> replaced_;
  std::uint64_t orphans_before_ = 0;  // of processes that were replaced
  ForkLimit fork_limit_;
};

}  // namespace evparallel::detail
