// child_table.hpp - the snapshot's table of children: by index, by pid, and in lists.
// Runs in: snapshot.  Licence: see COPYING.
//
// The table lives in zeroed memory.  A page of it is allocated only when it is touched, so a big
// table costs nothing.  The table itself neither allocates nor frees.
#pragma once

#include "base/clock.hpp"
#include "codec/wire.hpp"
#include "shared/child_slots.hpp"

#include <evparallel/error.hpp>

#include <sys/types.h>

#include <cstdint>

namespace evparallel::detail {

// The index of a child is the index of its slot.
using ChildIndex = std::uint32_t;
constexpr ChildIndex no_child = no_slot;

// A slot is in use until the client has acknowledged the end of its child, so a client that
// acknowledges nothing keeps all that it has taken.  These limits leave some to the others.
constexpr std::uint32_t slots_of_one_child = 4096;
constexpr std::uint32_t slots_of_children = slot_count - 1024;  // the others are the program's

enum class Stage : std::uint8_t { free, living, ended };

// One child, from its fork until its client has acknowledged the report of its end.
struct ChildEntry {
  Stage stage;

  std::uint32_t client;
  ChildIndex next;  // in the list that holds it: free, to report, or reported
  ChildIndex next_in_bucket;
  pid_t pid;
  bool of_child;                  // a child has asked for it, and not the program
  std::uint32_t slots;            // in use by the children that it has asked for
  std::uint64_t killed_with;      // bit mask of the signals that its client has sent it
  std::uint64_t terminated_with;  // the same for signals of the snapshot, sent when time was over
  std::uint64_t id;               // of the spawn, chosen by the client
  std::uint64_t number;           // of its exit, as its client counts them
  std::int64_t terminate_at;      // CLOCK_MONOTONIC in nanoseconds; so are the next two
  std::int64_t kill_at;
  std::int64_t overdue_at;
  std::uint64_t overdue_call;  // killed if it still runs this call then; 0: the ping counts
  std::uint64_t overdue_ping;
  bool overdue_start;             // neither counts: killed if it has not started then
  std::int64_t grace_ms;          // of `terminate_at`
  std::int64_t overdue_grace_ms;  // of `overdue_at`
  Cause terminate_for;            // the cause of an end by `terminate_at`
  Cause overdue_cause;
  Cause ended_for;  // the cause of the first signal that the snapshot has sent
  Report exit_report;
};

struct ChildList {
  ChildIndex first = no_child;
  ChildIndex last = no_child;
  bool empty() const noexcept { return first == no_child; }
};

class ChildTable {
public:
  // Requires: the object stands in zeroed memory.
  void set_up() noexcept;

  ChildEntry& operator[](ChildIndex index) noexcept { return entries_[index]; }
  ChildIndex used() const noexcept { return fresh_; }  // no index from here on was ever used
  std::size_t living() const noexcept { return living_; }
  // A child of this client lives.
  bool any_of(std::uint32_t client) const noexcept;

  // Removes an entry from the free list.  Returns no_child if all entries are in use.
  ChildIndex take_free() noexcept;
  void free(ChildIndex) noexcept;
  // Whether this child may have another child.
  bool may_have_another(ChildIndex owner) const noexcept {
    return slots_of_children_ < slots_of_children && entries_[owner].slots < slots_of_one_child;
  }
  // Fills an entry of take_free() with a living child.  `owner`: the child that has asked for it;
  // no_child: the program has.
  void add(ChildIndex, pid_t, std::uint32_t client, std::uint64_t id, ChildIndex owner) noexcept;
  // Call this once the child has been waited for: its pid may be reused from then on.
  void mark_ended(ChildIndex) noexcept;
  ChildIndex find_pid(pid_t) noexcept;

  void push(ChildList&, ChildIndex) noexcept;
  ChildIndex pop(ChildList&) noexcept;

private:
  static constexpr std::size_t bucket_count = 4096;
  ChildIndex& bucket_of(pid_t pid) noexcept {
    return buckets_[static_cast<std::size_t>(pid) % bucket_count];
  }

  std::size_t living_;
  std::uint32_t slots_of_children_;
  ChildIndex fresh_;
  ChildList free_;
  ChildIndex buckets_[bucket_count];
  ChildEntry entries_[slot_count];
};

}  // namespace evparallel::detail
