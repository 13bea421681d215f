// snapshot_entry.hpp - what the parent knows of one snapshot: the mirror of its table.
// Licence: see COPYING.
//
// An entry is complete before the fork and is found through static storage, so that a child
// inherits no half-built object.  A child has an entry of its own for the snapshot that forked it;
// it connects at the first use.
#pragma once

#include "client.hpp"
#include "fork.hpp"
#include "modules.hpp"
#include "notes.hpp"
#include "out_of_memory.hpp"
#include "server.hpp"
#include "slots.hpp"
#include "watch.hpp"

#include <evparallel/snapshot.hpp>
#include <evparallel/task.hpp>

#include <optional>
#include <unordered_map>

namespace evparallel {

// How a spawn ended, told exactly once for each.
struct LastWord {
  std::optional<ExitStatus> status;  // how the child ended
  std::optional<Error> failure;      // without a status: there never was one; else what to say
};

// Who asked for a child.
class SpawnListener {
public:
  virtual void on_spawned(pid_t, std::uint32_t slot) = 0;
  virtual void on_last_word(const LastWord&) = 0;

protected:
  ~SpawnListener() = default;
};

// "WHAT: the system's word for NUMBER", with the number as os_error().
Error system_error(Errc, const std::string& what, int number);

class SnapshotEntry : public Attached, public std::enable_shared_from_this<SnapshotEntry> {
public:
  // Forks a snapshot.  Fails: Error.
  static std::shared_ptr<SnapshotEntry> take(const SnapshotOptions&);
  // The entry that `chosen` names, or the default one.  Fails: Error{no_snapshot}.
  static std::shared_ptr<SnapshotEntry> choose(const Snapshot* chosen);
  // In a fresh child: what it was born with.
  static void become_child(const Spawn&, Descriptor door);

  ~SnapshotEntry() override;

  pid_t pid() const noexcept { return pid_; }
  bool is_at_home() const noexcept { return home_.is_here(); }

  bool alive() const noexcept;
  void stop() noexcept;

  // Asks for a child at the other end of `socket`, where this task is to run; nothing is waited for.
  // The listener hears from the loop, until forget().  Returns the id of the spawn.
  // Fails: std::logic_error if another reactor uses this snapshot.
  std::uint64_t spawn(const std::shared_ptr<Loop>&, const detail::Task&, Descriptor socket,
                      SpawnListener*);
  void forget(std::uint64_t id) noexcept;

  void kill(std::uint64_t id, std::uint32_t slot, int signum);
  // After `linger`: SIGTERM, and SIGKILL `grace` later.  The snapshot keeps the clock, so that it
  // needs no loop here.
  struct Clock {
    std::chrono::milliseconds linger;
    std::chrono::milliseconds grace;
    Cause cause;  // what it is called if it ends the child
  };
  void terminate(std::uint64_t id, std::uint32_t slot, const Clock&);
  // The same, if the child is at `call` then; or, for call 0, has not answered the ping.
  void strike(std::uint64_t id, std::uint32_t slot, const Clock&, std::uint64_t call,
              std::uint64_t ping);
  // Hears what there is to hear, soon, also where the loop does not tell of it: a program that
  // closes descriptors that it does not know makes it deaf.
  void look_later();

  const Slot* slot(std::uint32_t index) const noexcept;
  const CrashRecord* crash_record(std::uint32_t index) const noexcept;
  // What was loaded when it was taken.
  const Modules& modules() const noexcept { return *modules_; }
  Notes& notes() const noexcept { return *notes_; }

private:
  enum class State { unconnected, connected, stopped, lost };

  SnapshotEntry() = default;
  // Snapshots whose handles are gone, as far as they have ended.
  static void reap_abandoned() noexcept;
  void loop_gone() noexcept override;
  void fork_server();
  std::string described() const;
  std::optional<Error> why_not(const detail::Task&);
  Error another_process_has_it() const;
  Error was_stopped() const;
  Error is_dead() const;
  int connect();
  void bind(const std::shared_ptr<Loop>&);
  bool ask(const Request&, Descriptor along = {});
  void on_readable();
  void on_writable();
  void take_report(const Report&);
  void lost();
  Error why_lost() const;
  void reap();
  void fail_later(std::uint64_t id, Error, Descriptor socket = {});
  void last_word(std::uint64_t id, const LastWord&);

  Home home_ = Home::here();
  State state_ = State::unconnected;
  std::string name_;
  pid_t pid_ = 0;
  Slot* slots_ = nullptr;
  Notes* notes_ = nullptr;
  OutOfMemory out_of_memory_;
  std::shared_ptr<const Modules> modules_;  // when the snapshot was taken, in its children too
  Descriptor door_;
  Client client_;
  std::uint64_t next_id_ = 1;
  std::shared_ptr<Loop> loop_;
  // As long as there is a loop to hear of the end in, and to reap in.
  std::shared_ptr<SnapshotEntry> self_;
  Event read_event_;
  Event write_event_;
  Event reap_event_;
  bool reaped_ = false;
  bool refused_ = false;  // in a child: it was not let in
  struct Living {
    SpawnListener* listener;  // null: forgotten
    pid_t pid;
    bool asked;  // the snapshot may have heard of it
  };
  std::unordered_map<std::uint64_t, Living> living_;
};

}  // namespace evparallel
