// spawn_table.hpp - the children that a process of a snapshot was asked for and that have not ended, by id.
// Runs in: parent.  Licence: see COPYING.
//
// Passive: a table.  Ids rise as they are given, those of spares apart from all others, so that each
// kind stands sorted in a row of its own.
#pragma once

#include "codec/wire.hpp"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace evparallel {

class SpawnObserver;

struct SpawnRecord {
  std::uint64_t id = 0;
  SpawnObserver* listener = nullptr;  // null: forgotten, or a spare
  pid_t pid = 0;                      // 0: as far as is known it was not forked yet
  std::uint32_t slot = no_slot;
  std::int64_t born_before = 0;  // by boottime_ns(), where there is a pid
  bool asked = false;            // the snapshot may have heard of it
  bool spare = false;            // no spawn has taken it yet
  bool untold = false;           // one has, and is still to hear that it was forked
  bool ended = false;            // its place is still to be given up
};

class SpawnTable {
public:
  // Requires: an id above all of its kind before.  Valid until the next add() or erase().
  SpawnRecord& add(std::uint64_t id);
  // nullptr: there is none, or none any more.
  SpawnRecord* find(std::uint64_t id) noexcept;
  void erase(std::uint64_t id) noexcept;

  // All of them, in order.
  std::vector<std::uint64_t> ids() const;
  bool only_spares() const noexcept;
  // The loop that they hang on is gone.
  void forget_listeners() noexcept;

private:
  struct Places {
    std::vector<SpawnRecord> all;
    std::size_t ended = 0;
    void close_up() noexcept;
  };
  Places& places_of(std::uint64_t id) noexcept;

  Places spawned_;
  Places spares_;
};

}  // namespace evparallel
