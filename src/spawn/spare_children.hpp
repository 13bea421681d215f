// spare_children.hpp - spare children: forked ahead, each waits for the task of a spawn.
// Runs in: parent.  Licence: see COPYING.  Manual: evparallel_snapshot(3), evparallel_protocol(7).
//
// The first task of a spare child is a warm-up: it answers one call, and then waits for a task
// again.  No loop watches its socket: a spawn that needs a spare checks whether it has answered and
// lives, and the snapshot reports its end.  So an idle spare causes no iteration of a loop.
//
// Passive: it neither sends requests to a snapshot nor receives its reports.  The owner of the
// object does both.
#pragma once

#include "system/descriptor.hpp"

#include <evparallel/task.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace evparallel::detail {

struct Spare {
  std::uint64_t id = 0;  // of its spawn
  OwnedFd socket;        // the parent's end of its data socket
  bool ready = false;    // the answer to its warm-up was read
};

class Spares {
public:
  // Each holds a descriptor, and a process usually has about a thousand of them.
  static constexpr unsigned most = 4096;
  // The ids of their spawns begin here; those of other spawns stay below.
  static constexpr std::uint64_t first_id = std::uint64_t{1} << 63;

  explicit Spares(unsigned wanted) noexcept : wanted_(wanted) {}

  // Whether to ask for a spare: one is missing, and since the program's last spawn at most twice
  // the wanted number were lost, so it still makes sense to replace them.
  bool wants_more() const noexcept;
  // Makes the sockets of a spare and writes its warm-up; `theirs`, the child's end, is sent with
  // the request.  Returns 0, or an errno if it was not added.
  int add(std::uint64_t id, OwnedFd& theirs);
  // The program spawns this task: spares that are added from now on touch its code, because the
  // same task is mostly spawned again.
  void expect(const Task&);
  // Removes a spare that is ready and lives.
  std::optional<Spare> take();
  // Reads which spares have answered; done between spawns to save the time in a spawn.
  void look();
  // The snapshot has reported its end.
  void lose(std::uint64_t id) noexcept;
  // The program has asked for a child: spares that were lost before do not count any more.
  void forgive() noexcept { lost_ = 0; }
  // Closes their sockets, which ends them.
  void clear() noexcept { all_.clear(); }

private:
  unsigned wanted_;
  std::size_t lost_ = 0;
  std::vector<const void*> code_;  // of the task of the last spawn
  std::deque<Spare> all_;
};

}  // namespace evparallel::detail
