// spare_children.hpp - children that were forked ahead, each waiting for the task of a spawn.
// Runs in: parent.  Licence: see COPYING.  Manual: evparallel_snapshot(3), evparallel_protocol(7).
//
// A spare is a child whose first task is a rehearsal: it answers one call, and then waits for a task
// again.  No loop watches its socket: whether it has answered, and lives, is looked at when a spawn
// wants one, and its end is told by the snapshot.  So a spare that waits costs no turn of any loop.
//
// Passive: it neither asks a snapshot nor hears of it.  Its owner does both.
#pragma once

#include "system/descriptor.hpp"

#include <evparallel/task.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace evparallel {

struct Spare {
  std::uint64_t id = 0;  // of its spawn
  OwnedFd socket;        // the parent's end of its data socket
  bool ready = false;    // the answer to its rehearsal was read
};

class Spares {
public:
  // Each holds a descriptor, of which a process has a thousand or so.
  static constexpr unsigned most = 4096;
  // The ids of their spawns; those of others stay below.
  static constexpr std::uint64_t first_id = std::uint64_t{1} << 63;

  explicit Spares(unsigned wanted) noexcept : wanted_(wanted) {}

  // Whether one should be asked for: one is missing, and since the program's last spawn not so many
  // were lost that to replace them is of no use.
  bool wants_more() const noexcept;
  // Makes its sockets and writes its rehearsal; the child's end is to go along with the request.
  // Returns 0 or an errno, and it was not added.
  int add(std::uint64_t id, OwnedFd& theirs);
  // The program spawns this task: those that are added from now on look at its code, since what
  // was spawned is mostly spawned again.
  void expect(const detail::Task&);
  // One that is ready and lives, taken out.
  std::optional<Spare> take();
  // Looks which have answered, beside a spawn rather than in it.
  void look();
  // Its last word has come.
  void lose(std::uint64_t id) noexcept;
  // The program has asked for a child: what was lost before does not count any more.
  void forgive() noexcept { lost_ = 0; }
  // Their sockets are closed, and that ends them.
  void drop() noexcept { all_.clear(); }

private:
  unsigned wanted_;
  std::size_t lost_ = 0;
  std::vector<const void*> code_;  // of the task that was spawned last
  std::deque<Spare> all_;
};

}  // namespace evparallel
