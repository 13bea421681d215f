// snapshot.hpp - a forked copy of the program that waits, from which children are forked.
// Licence: see COPYING.  Manual: evparallel_snapshot(3).
//
// Take it in main(), after daemonising, before any thread and any Reactor.  What a child sees of
// the program is what was there at that moment.
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

class Replicas;

enum class Preflight {
  strict,  // threads, and descriptors of event loops, are refused
  warn,    // they are named on standard error, in one line, and the snapshot is taken
  off,     // nothing is looked at
};

struct SnapshotOptions {
  std::string name{};  // stands in messages about it
  // Processes that it consists of.  Children are forked from each in turn; where one is lost, from
  // the others.  Not 0.
  unsigned replicas = 1;
  // Children that each replica keeps forked ahead, so that a spawn is a message to one that waits.
  // At most 4096.
  unsigned spares = 0;
  // Large memory is put on files in memory, so that its page tables are not copied for each child.
  // It pays for children that touch little of it.  Takes about half a second a gigabyte, until then
  // the constructor waits.
  bool freeze = false;
  Preflight preflight = Preflight::strict;
  // Of child_seed() in the children.  None: each run of the program has another one.
  std::optional<std::uint64_t> seed{};
  // Added to the program's own, at most up to 1000: where memory runs out, the kernel is to end
  // children first.
  int oom_score_adj = 200;
};

// Any number of them; each is used by one Reactor at a time.  A handle that was inherited by
// another process does nothing there, and may be destroyed.
class EVPARALLEL_API Snapshot {
public:
  // Forks now.  Standard descriptors that are closed are opened on /dev/null first.
  // Fails: Error{refused}, naming what is in the way; Error{spawn_failed} with os_error();
  // std::logic_error.
  explicit Snapshot(const SnapshotOptions& = {});
  Snapshot(Snapshot&&) noexcept;
  Snapshot& operator=(Snapshot&&) noexcept;
  ~Snapshot();  // as stop()

  pid_t pid() const noexcept;  // of the first replica
  // Of all replicas in the order in which they were forked, those that are dead too.
  std::vector<pid_t> pids() const;
  // Not stopped, and one replica at least is not known to be dead.
  bool alive() const noexcept;
  // How many processes were killed so far that children had left behind, as the loop has heard.
  std::uint64_t orphans_killed() const noexcept;
  // How many bytes of memory are frozen.
  std::uint64_t frozen_bytes() const noexcept;
  // No more children; those that live run on, and the process ends with the last of them.  Never
  // blocks.
  void stop() noexcept;
  // Called from the loop of the Reactor that uses it, once for each replica that ends though nobody
  // has stopped it, when its calls have heard; with how it ended.  It is not replaced.  Released by
  // stop().
  void on_lost(Callback<void(const ExitStatus&)>);

  // For the other parts of the library.
  const std::shared_ptr<Replicas>& replicas() const noexcept { return replicas_; }

private:
  friend class Replicas;
  explicit Snapshot(std::shared_ptr<Replicas>) noexcept;
  std::shared_ptr<Replicas> replicas_;
};

// Takes the default snapshot, once a process, in the beginning.  It ends with the program.
// Fails: std::logic_error the second time; else as the constructor of Snapshot.
EVPARALLEL_API void init(const SnapshotOptions& = {});
// In a child: the one that forked it.  Fails: Error{no_snapshot} before init().
EVPARALLEL_API Snapshot& default_snapshot();

// True in a process that a snapshot forked.
EVPARALLEL_API bool in_child() noexcept;

}  // namespace evparallel
