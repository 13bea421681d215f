// cancel_table.hpp - the deadlines and cancellations of single calls, written by the parent.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// This is shared memory for the same reason as the slots: a task that computes reads no messages.
// All clients of a snapshot share the table; an entry belongs to the client that has claimed it.
// If the table is full a call has no entry: then the task is not informed, and only the parent
// enforces the deadline.
#pragma once

#include "base/clock.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

constexpr std::int64_t revoked = INT64_MIN;  // cancelled: as a deadline that has always passed
// The call is made in another child: a child that has not begun it does not begin it; a child that
// has begun it ignores this.
constexpr std::int64_t reassigned = INT64_MIN + 1;
// The parent wants the call back, and looks whether the child has begun it; then it writes one of
// the other values.  A child that is about to begin the call waits for that: if it refused a call
// that the parent leaves to it, nobody would make the call until the parent reads the refusal.
constexpr std::int64_t undecided = INT64_MIN + 2;
// A call that has begun ignores both.
constexpr bool is_reassignment(std::int64_t deadline) noexcept {
  return deadline == reassigned || deadline == undecided;
}

struct alignas(32) CancelEntry {
  std::atomic<std::uint64_t> owner{0};  // 0: free
  std::atomic<std::uint64_t> call{0};
  std::atomic<std::int64_t> deadline{0};
};

class CancelTable {
public:
  // A new table for one snapshot and all its children.  nullptr: no memory.
  static CancelTable* map() noexcept;
  // Unmaps it in this process only.
  static void unmap(CancelTable*) noexcept;

  // The owner id of the entries of one child; unique while this table exists.
  static std::uint64_t new_owner() noexcept;

  // Returns nullptr if there is no room.  After it, the caller reads at least the state that
  // another process had written before it looked for the entry.
  CancelEntry* write(std::uint64_t owner, std::uint64_t call, std::int64_t deadline) noexcept;
  void erase(CancelEntry*) noexcept;

  // The deadline of the call; no_deadline if there is no entry.
  std::int64_t deadline_of(std::uint64_t owner, std::uint64_t call) const noexcept {
    return count_.load() == 0 ? no_deadline : look_up(owner, call);
  }
  // The same for a child that begins the call: never `undecided`.
  std::int64_t decided_deadline_of(std::uint64_t owner, std::uint64_t call) const noexcept {
    const std::int64_t deadline = deadline_of(owner, call);
    return deadline == undecided ? wait_for_decision(owner, call) : deadline;
  }

private:
  static constexpr std::size_t entry_count = std::size_t{1} << 18;
  static constexpr std::size_t reach = 8;  // number of positions in which an entry may be
  static std::size_t first_place(std::uint64_t owner, std::uint64_t call) noexcept;
  std::int64_t look_up(std::uint64_t owner, std::uint64_t call) const noexcept;
  std::int64_t wait_for_decision(std::uint64_t owner, std::uint64_t call) const noexcept;

  alignas(64) std::atomic<std::size_t> count_;
  CancelEntry entries_[entry_count];
};

}  // namespace evparallel::detail
