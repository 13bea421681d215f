// spawn_table.hpp - the requested children of one process of a snapshot that have not ended, by id.
// Runs in: parent.  Licence: see COPYING.
//
// Passive: a table.  Ids are given in increasing order, those of spares apart from all others, so
// each kind is in a sorted vector of its own.
#pragma once

#include "base/clock.hpp"
#include "codec/wire.hpp"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace evparallel::detail {

class SpawnObserver;

struct SpawnRecord {
  std::uint64_t id = 0;
  SpawnObserver* listener = nullptr;  // null: forgotten, or a spare
  pid_t pid = 0;                      // 0: not forked yet, as far as is known
  std::uint32_t slot = no_slot;
  std::int64_t start_by = never;  // when its start is looked at; never: it needs no look
  std::int64_t born_before = 0;   // in the time of boottime_ns(), if there is a pid
  bool asked = false;             // the snapshot may have received the request
  bool spare = false;             // no spawn has taken it yet
  bool start_unreported = false;  // a spawn has taken it, and its fork is still to be reported
  bool ended = false;             // its record is still to be removed
  bool without_task = false;      // it had not read its task at the last look
};

class SpawnTable {
public:
  // Requires: an id above all earlier ones of its kind.  The reference is valid until the next
  // add() or erase().
  SpawnRecord& add(std::uint64_t id);
  // nullptr: there is none, or it was erased.
  SpawnRecord* find(std::uint64_t id) noexcept;
  void erase(std::uint64_t id) noexcept;

  // The ids of all, in order.
  std::vector<std::uint64_t> ids() const;
  bool only_spares() const noexcept;
  // Drops all observers: their loop is gone.
  void forget_listeners() noexcept;

private:
  struct Records {
    std::vector<SpawnRecord> all;
    std::size_t ended = 0;
    void close_up() noexcept;
  };
  Records& records_of(std::uint64_t id) noexcept;

  Records spawned_;
  Records spares_;
};

}  // namespace evparallel::detail
