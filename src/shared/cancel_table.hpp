// cancel_table.hpp - what the parent says about single calls while they wait or run: when they are due, or
// that nobody waits for them any more.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// Shared memory again, for the same reason as slots: a task that computes reads no message.  A table
// open to all clients of a snapshot; a place belongs to whoever has claimed it.  Where it is full a
// call has no note: then the task is not told, and only the parent keeps the deadline.
#pragma once

#include "base/clock.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace evparallel {

constexpr std::int64_t revoked = INT64_MIN;  // cancelled: due before all time
// It is made elsewhere: the child does not begin it; if it has, this says nothing.
constexpr std::int64_t reassigned = INT64_MIN + 1;

struct alignas(32) CancelEntry {
  std::atomic<std::uint64_t> owner{0};  // 0: free
  std::atomic<std::uint64_t> call{0};
  std::atomic<std::int64_t> deadline{0};
};

class CancelTable {
public:
  // A fresh table for one snapshot and all its children.  nullptr: no memory.
  static CancelTable* map() noexcept;
  // In this process only.
  static void unmap(CancelTable*) noexcept;

  // Whose notes these are: a number for one child, never given to another as long as this table is
  // there.
  static std::uint64_t new_owner() noexcept;

  // nullptr: no room.  What the writer reads after it is as new as what a reader of the note wrote
  // before it looked.
  CancelEntry* write(std::uint64_t owner, std::uint64_t call, std::int64_t deadline) noexcept;
  void erase(CancelEntry*) noexcept;

  // The time at which the call is due: no_deadline where there is no note.
  std::int64_t deadline_of(std::uint64_t owner, std::uint64_t call) const noexcept {
    return count_.load() == 0 ? no_deadline : look_up(owner, call);
  }

private:
  static constexpr std::size_t note_count = std::size_t{1} << 18;
  static constexpr std::size_t reach = 8;  // places that a note may be in
  static std::size_t first_place(std::uint64_t owner, std::uint64_t call) noexcept;
  std::int64_t look_up(std::uint64_t owner, std::uint64_t call) const noexcept;

  alignas(64) std::atomic<std::size_t> count_;
  CancelEntry notes_[note_count];
};

}  // namespace evparallel
