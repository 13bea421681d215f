// snapshot_process.hpp - one process of a snapshot, as the parent knows it.
// Runs in: parent.  Licence: see COPYING.
//
// An object is complete before the fork and is found through static storage, so that a child
// inherits no half-built object.  A child has an object of its own for the snapshot that forked it,
// and connects at the first use.
#pragma once

#include "base/system_error.hpp"
#include "system/fork.hpp"
#include "system/random_seed.hpp"
#include "backtrace/loaded_modules.hpp"
#include "shared/cancel_table.hpp"
#include "shared/child_slots.hpp"
#include "snapshot/server.hpp"
#include "loop/event_loop.hpp"
#include "child/birth.hpp"
#include "spawn/control_client.hpp"
#include "spawn/oom_counter.hpp"
#include "spawn/rendezvous.hpp"
#include "spawn/spare_children.hpp"
#include "spawn/spawn_table.hpp"

#include <evparallel/snapshot.hpp>
#include <evparallel/task.hpp>

#include <optional>
#include <string>
#include <vector>

namespace evparallel::detail {

struct FreezeReply;

// The state shared by the processes of one snapshot, as of the time when it was taken.
struct SnapshotShared : std::enable_shared_from_this<SnapshotShared> {
  SnapshotShared() = default;
  SnapshotShared(const SnapshotShared&) = delete;
  SnapshotShared& operator=(const SnapshotShared&) = delete;
  ~SnapshotShared();
  // Of a snapshot that is forked from this one.  `name`: its name; null: the same one.
  std::shared_ptr<SnapshotShared> cloned(const std::string* name);

  std::string name;
  unsigned replicas = 1;
  std::shared_ptr<const Modules> modules;  // loaded then, and so in children, too
  CancelTable* cancel_table = nullptr;
  std::shared_ptr<SnapshotShared> origin;  // of a clone: it owns the cancel table of both
  std::uint64_t clones = 0;
  OomCounter out_of_memory;
  OwnerProcess home = OwnerProcess::here();
  std::uint64_t frozen = 0;      // in bytes
  std::uint64_t seed = 0;        // the seed of a child comes from it and the number of its spawn
  std::uint64_t next_spawn = 1;  // unique over all replicas
  std::uint64_t next_spare = 0;  // unique over all replicas, too
};

class SnapshotProcess;

// The callbacks of a process of a snapshot to the set of all of them.
class ReplicaObserver {
public:
  // A process that was forked from a living one serves now.
  virtual void on_serving(SnapshotProcess&) = 0;
  // It is lost: it has ended without being stopped, or never was forked.  This comes before its
  // calls and their observers learn of it.  Called again when look_again_in() is over, and by a new
  // loop.
  virtual void on_loss(SnapshotProcess&) = 0;

protected:
  ~ReplicaObserver() = default;
};

// How a spawn ended; reported exactly once for each spawn.
struct SpawnOutcome {
  std::optional<ExitStatus> status;  // how the child ended
  std::optional<Error> failure;      // no status: there never was a child; else what to report
};

// The callbacks of a spawn.
class SpawnObserver {
public:
  virtual void on_spawned(pid_t, std::uint32_t slot) = 0;
  // Takes the memory that on_outcome() needs.  Fails: std::bad_alloc.
  virtual void prepare_for_outcome() = 0;
  virtual void on_outcome(const SpawnOutcome&) = 0;
  // Options::start_timeout and Options::grace of the child.
  struct StartLimit {
    std::chrono::milliseconds time;
    std::chrono::milliseconds grace;
  };
  virtual StartLimit start_limit() const noexcept = 0;

protected:
  ~SpawnObserver() = default;
};

class SnapshotProcess : public LoopObserver, public std::enable_shared_from_this<SnapshotProcess> {
public:
  // Forks one process.  Fails: Error{spawn_failed}.
  static std::shared_ptr<SnapshotProcess> take(std::shared_ptr<SnapshotShared>,
                                               const SnapshotOptions&);
  // Forks one process, waits until it is frozen, and forks the others from it.  Fails:
  // Error{refused}, Error{spawn_failed}.
  static std::vector<std::shared_ptr<SnapshotProcess>> take_frozen(std::shared_ptr<SnapshotShared>,
                                                                   const SnapshotOptions&);
  // Asks `living`, which may still be on its way itself, to fork one beside it.  Does not wait:
  // the new process may be asked for children at once.  `name`: its own name, or none.
  // Fails: Error{spawn_failed} (no descriptors, no memory).
  static std::shared_ptr<SnapshotProcess> fork_beside(SnapshotProcess& living,
                                                      std::shared_ptr<SnapshotShared>,
                                                      const std::string* name);
  // In a child: the snapshot that forked it.
  static std::shared_ptr<SnapshotProcess> of_child(Inheritance&);
  // For another Reactor than the one that has the process: connects at the first use.  Forks no
  // process beside it, and does not stop it.
  static std::shared_ptr<SnapshotProcess> joined_to(std::shared_ptr<Rendezvous>,
                                                    std::shared_ptr<SnapshotShared>,
                                                    unsigned spares);
  // Reaps the snapshots whose handles are destroyed, as far as they have ended.
  static void reap_abandoned() noexcept;

  ~SnapshotProcess() override;

  pid_t pid() const noexcept { return rendezvous_->pid(); }  // 0: not known yet
  const std::shared_ptr<SnapshotShared>& shared() const noexcept { return shared_; }
  const std::shared_ptr<Rendezvous>& rendezvous() const noexcept { return rendezvous_; }
  // The loop that receives its reports; may be null, or not alive any more.
  const std::shared_ptr<Loop>& loop() const noexcept { return loop_; }

  bool alive() const noexcept;
  // The same, and its socket has not hung up; this may be known before the loop reports it.
  bool can_be_asked() const noexcept;
  // It has begun to serve, as far as is known.
  bool serves() const noexcept { return serves_; }
  bool is_lost() const noexcept { return state_ == State::lost; }
  // It could not be forked, or could not serve.
  bool has_failed_to_start() const noexcept { return start_error_ != 0; }
  // It is to be reaped, or how it has ended is to be reported to an on_lost callback that is not set
  // yet.
  bool has_unreported_loss() const noexcept { return !reaped_ || loss_.has_value(); }
  // Whether a living process can fork one beside it: not in a pid namespace that does not see this
  // process.
  bool can_fork_beside() const noexcept { return !joined_ && rendezvous_->knows_numbers; }
  void stop() noexcept;
  void observe(std::weak_ptr<ReplicaObserver> observer) noexcept {
    observer_ = std::move(observer);
  }
  // For one that is lost: calls on_loss() again then.
  void look_again_in(std::chrono::nanoseconds);
  // Why no child can be had from it any more.  Requires: it is stopped, or has ended.
  Error why_gone() const;

  // From now on this loop receives its reports.  Requires: no other loop that lives does.
  void bind(const std::shared_ptr<Loop>&);
  // Called once, from the loop, if the process ends without being stopped.
  void set_on_lost(Callback<void(const ExitStatus&)>);

  // Asks for a child with these standard streams to run this task, or takes a spare child for it.
  // Does not wait.  Calls the observer from the loop, until forget().
  // Fails: Error{spawn_failed} (no descriptors), and no request was sent.
  struct SpawnTicket {
    std::uint64_t id;  // of the spawn
    OwnedFd socket;    // this end of its data socket
    std::uint64_t seed;
  };
  SpawnTicket spawn(const std::shared_ptr<Loop>&, const Task&, StdioPlan, Group, SpawnObserver*);
  // Ends the child if it is not ready for its first call when it has had its task for the time that
  // its observer names.
  void limit_start(std::uint64_t id);
  // It is known to be ready: an idle program must not wake up to look at it.
  void end_limit_of_start(std::uint64_t id) noexcept;
  void forget(std::uint64_t id) noexcept;

  void kill(std::uint64_t id, std::uint32_t slot, int signum);
  // SIGTERM after `linger`, and SIGKILL `grace` later.  The timer is in the snapshot, so that it
  // needs no loop in this process.
  struct Clock {
    std::chrono::milliseconds linger;
    std::chrono::milliseconds grace;
    Cause cause;  // the cause of the end if this timer ends the child
  };
  void terminate(std::uint64_t id, std::uint32_t slot, const Clock&);
  // The same, if the child still runs `call` then; or, for call 0, has not answered the ping.
  void kill_if_still_running(std::uint64_t id, std::uint32_t slot, const Clock&, std::uint64_t call,
                             std::uint64_t ping);
  // The same, if the child is not ready for its first call then.
  void kill_if_not_started(std::uint64_t id, std::uint32_t slot, const Clock&);
  // Reads pending reports soon, even if the loop does not report the socket: if the program closes
  // descriptors that it does not know, the loop reports nothing more about them.
  void look_later();

  // From now on `count` children are forked ahead, and each one that a spawn takes is replaced.
  // Fails: Error{spawn_failed} (no descriptors).
  void keep_spares(unsigned count);
  // The same; what cannot be had now is tried again with the next spawn.
  void keep_spares_if_possible(unsigned count);

  // The number of orphans that it has killed, as of the last report.
  std::uint64_t orphans() const noexcept { return orphans_killed_; }
  const Slot* slot(std::uint32_t index) const noexcept;
  const CrashRecord* crash_record(std::uint32_t index) const noexcept;
  // The modules that were loaded when it was taken.
  const Modules& modules() const noexcept { return *shared_->modules; }

private:
  enum class State { unconnected, connected, stopped, lost };

  SnapshotProcess(std::shared_ptr<SnapshotShared> shared, std::shared_ptr<Rendezvous> rendezvous)
      : shared_(std::move(shared)), rendezvous_(std::move(rendezvous)) {
    reserve_abandoned();
  }
  static void reserve_abandoned();
  void end() noexcept;
  explicit SnapshotProcess(std::shared_ptr<SnapshotShared> shared)
      : SnapshotProcess(std::move(shared), std::make_shared<Rendezvous>()) {}
  void on_loop_destroyed() noexcept override;
  void retry() override;
  void map_own_slots();
  void fork_server(const SnapshotOptions&);
  void adopt(pid_t, OwnedFd ours);
  Packet wait_for_word(void* word, std::size_t size);
  FreezeReply wait_until_frozen();
  void wait_until_serving();
  std::string wait_for_end();
  void fork_from(SnapshotProcess& first);
  bool send_start(const OwnedFd& slots, const OwnedFd& served, const std::string* name);
  void send_now();
  void take_start(const Report&);
  Error was_not_forked() const;
  std::string described() const;
  std::optional<Error> why_not(const Task&);
  Error was_stopped() const;
  std::string how_it_ended() const;
  Error is_dead() const;
  Error none_lives() const;
  int connect();
  int lose_unconnected();
  void ask_for_child(std::uint64_t id, const std::optional<Error>& failure, OwnedFd socket,
                     StdioPlan, Group, SpawnObserver*);
  bool ask(const Request&, OwnedFd along = {}, StdioPlan = {});
  void on_readable();
  void on_writable();
  void wait_to_send();
  pid_t number_here(pid_t) const noexcept;
  bool take_reports();
  void take_report(const Report&);
  void lost();
  Error why_lost() const;
  void inform_observer();
  bool wait_for_status();
  void reap();
  void abandon() noexcept;
  void release_rendezvous() noexcept;
  void leave() noexcept;
  void lose_children();
  void lose_child(const SpawnRecord&, const Error& why);
  void kill_survivors() noexcept;
  ExitStatus loss_of(const Reaped&);
  void report_loss();
  void check_starts();
  void check_start(SpawnRecord&, std::int64_t now);
  void check_starts_at(std::int64_t);
  void end_limit_of_start(SpawnRecord&) noexcept;
  void fail_later(std::uint64_t id, const Error&, OwnedFd socket);
  void report_failures();
  void exit_report(std::uint64_t id, const SpawnOutcome&);

  // ---- spares (spare_children.cpp) ----
  int fill_spares();
  void refill();
  void refill_soon();
  std::optional<Spare> take_spare(const Task&, const StdioPlan&, Group);
  void hand_over(std::uint64_t id, SpawnObserver*);
  void report_spawned(std::uint64_t id);
  void lose_spare(std::uint64_t id);
  void drop_spares() noexcept;

  OwnerProcess home_ = OwnerProcess::here();
  State state_ = State::unconnected;
  std::shared_ptr<SnapshotShared> shared_;
  std::shared_ptr<Rendezvous> rendezvous_;
  bool joined_ = false;  // see joined_to()
  ControlClient client_;
  std::shared_ptr<Loop> loop_;
  // Set while there is a loop that receives the end and reaps the process.
  std::shared_ptr<SnapshotProcess> self_;
  Event read_event_;
  Event write_event_;
  Event retry_event_;
  Event reap_event_;
  Event again_event_;
  bool serves_ = true;   // false: it was asked for, and has not reported that it serves
  int start_error_ = 0;  // an errno: it could not be forked, or could not serve
  bool reaped_ = false;
  int looks_ = 0;                  // for its end, since its socket has ended
  std::optional<ExitStatus> how_;  // it has ended, if that is known
  std::weak_ptr<ReplicaObserver> observer_;
  std::vector<SpawnRecord> survivors_;  // children that lived when it was lost; until it is reaped
  std::optional<ExitStatus> loss_;  // How it has ended without being stopped; until it is reported.
  Callback<void(const ExitStatus&)> on_lost_;
  bool holds_loop_ = false;  // until its loss has been reported
  std::uint64_t orphans_killed_ = 0;
  bool refused_ = false;  // in a child: the snapshot has refused to accept it
  SpawnTable living_;
  std::optional<Report> report_;  // it was read, and there was no memory to handle it
  struct Failure {
    std::uint64_t id;
    Error error;
    OwnedFd socket;  // the child's end
  };
  std::vector<Failure> failures_;  // spawns whose failure is still to be reported
  std::optional<Spares> spares_;
  Event refill_event_;
  Event starts_event_;
  std::int64_t starts_at_ = never;  // when it expires
  std::size_t starts_ = 0;          // whose time is limited
};

}  // namespace evparallel::detail
