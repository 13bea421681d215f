// snapshot.hpp - a forked copy of the program that waits, and from which children are forked.
// Licence: see COPYING.  Manual: evparallel_snapshot(3).
//
// Take it in main(), after daemonising, before any thread and any Reactor.  A child sees the
// program as it was when the snapshot was taken.
#pragma once

#include <evparallel/callback.hpp>
#include <evparallel/error.hpp>
#include <evparallel/preflight.hpp>

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace evparallel {

namespace detail {
class Replicas;
}

enum class Preflight {
  strict,  // refuse threads, and descriptors of event loops
  warn,    // name them on standard error, in one line, and take the snapshot
  off,     // no checks
};

struct SnapshotOptions {
  std::string name{};  // used in messages about it
  // The number of its processes.  They fork children in rotation; if one is lost, the others go on,
  // and one of them forks its successor.  Not 0.
  unsigned replicas = 1;
  // One process more, which forks no children until another one is lost: then it takes its place at
  // once, and is replaced itself.  With it a snapshot of one replica outlives a task that kills it.
  bool standby = false;
  // The number of children that each replica keeps forked ahead, for each Reactor that uses it, so
  // that a spawn is a message to one that waits.  At most 4096.
  unsigned spares = 0;
  // Moves large memory to files in memory, so that its page tables are not copied for each child.
  // This pays for children that touch little of it.  Takes about half a second a gigabyte; the
  // constructor waits for it.
  bool freeze = false;
  Preflight preflight = Preflight::strict;
  // The base of child_seed() in the children.  None: another one in each run of the program.
  std::optional<std::uint64_t> seed{};
  // Added to the program's own score, up to 1000: when memory runs out, the kernel should kill
  // children first.
  int oom_score_adj = 200;
};

// There may be any number of snapshots, and any number of Reactors may use each of them, in any
// threads.  The Reactor that uses it first is the one of its handle: its thread calls the functions
// of the handle, and it replaces lost replicas; when it has ended, the next one that makes something
// takes its place.  In another thread the functions throw std::logic_error, except stop() and the
// destructor; naming the snapshot in Options::snapshot is possible in each thread.  A handle that
// another process has inherited does nothing there, and may be destroyed.
class EVPARALLEL_API Snapshot {
public:
  // Forks now.  Closed standard descriptors are opened on /dev/null first.
  // Fails: Error{refused}, naming what prevents the snapshot; Error{spawn_failed} with os_error();
  // std::logic_error.
  explicit Snapshot(const SnapshotOptions& = {});
  Snapshot(Snapshot&&) noexcept;
  Snapshot& operator=(Snapshot&&) noexcept;
  ~Snapshot();  // as stop()

  pid_t pid() const;  // of the first replica; 0: not known yet, see clone()
  // Of all replicas, each in its place, and of the standby in the last one.  A dead one keeps its
  // place until its successor serves.
  std::vector<pid_t> pids() const;
  // True if it is not stopped, and at least one of its processes is not known to be dead.
  bool alive() const;
  // The number of orphans (processes that children leave behind) that it has killed, as of the last
  // report that the loop has received.
  std::uint64_t orphans_killed() const;
  // The number of frozen bytes of memory.
  std::uint64_t frozen_bytes() const noexcept;
  // Forks no more children; living ones run on, and the snapshot ends with the last of them.  Never
  // blocks.
  void stop() noexcept;
  // Called from the loop of its Reactor, once for each replica that ends
  // without being stopped, after the callbacks of its calls, with its exit status.  A living one
  // then forks its successor.  stop() releases the callback.
  void on_lost(Callback<void(const ExitStatus&)>);
  // Another snapshot of the same moment of the program, with the same options, that a living process
  // of this one forks: there may be a Reactor, and threads.  Returns at once; the clone may be used
  // at once.  If the fork fails, the first calls report it, and alive() becomes false.  None of the
  // two affects the other.
  // Fails: Error{no_snapshot} if this is stopped, moved from, or of another process;
  // Error{snapshot_lost} if it is dead; Error{spawn_failed} (no descriptors, no memory);
  // Error{refused} in another pid namespace; std::logic_error in a child.
  [[nodiscard]] Snapshot clone();
  // The same with a name of its own.
  [[nodiscard]] Snapshot clone(const std::string& name);

  // For the other parts of the library.
  const std::shared_ptr<detail::Replicas>& replicas() const noexcept { return replicas_; }

private:
  friend class detail::Replicas;
  explicit Snapshot(std::shared_ptr<detail::Replicas>) noexcept;
  std::shared_ptr<detail::Replicas> replicas_;
};

// Takes the default snapshot, once in a process, at its beginning.  It ends with the program.
// Fails: std::logic_error the second time; otherwise as the constructor of Snapshot.
EVPARALLEL_API void init(const SnapshotOptions& = {});
// The same, unless it was taken before: for a component that cannot know.  The options are those of
// the call that takes it.
// Fails: as the constructor of Snapshot.
EVPARALLEL_API Snapshot& default_or_init(const SnapshotOptions& = {});
// In a child: the snapshot that forked it.  Fails: Error{no_snapshot} before init().
EVPARALLEL_API Snapshot& default_snapshot();

// True in a process that a snapshot forked.
EVPARALLEL_API bool in_child() noexcept;

}  // namespace evparallel
