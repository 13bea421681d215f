// child_slots.hpp - memory that the parent shares with the children of one snapshot: a slot each.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// While a synchronous task runs, its child reads and sends no messages; a word in shared memory
// reaches it.  What a child writes is untrusted input to the others.
#pragma once

#include "system/descriptor.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

struct CrashRecord;

constexpr std::size_t slot_count = 16384;  // also the limit of living children of one snapshot

// The last call that a child has begun (ids increase), and whether it still runs: one word, so that
// the two are consistent.
struct CallState {
  std::uint64_t id = 0;
  bool running = false;

  static CallState of(std::uint64_t word) noexcept { return {word >> 1, (word & 1) != 0}; }
  std::uint64_t word() const noexcept { return id << 1 | (running ? 1U : 0U); }
};

// Whether the child may begin another call.
enum class StopRequest : std::uint32_t {
  none,          // it may
  requested,     // the snapshot is about to end the child: it must not begin another call
  acknowledged,  // the child has read the request, and ends by itself
};

struct alignas(64) Slot {
  std::atomic<std::uint64_t> call{0};           // a CallState.  Written by the child
  std::atomic<std::uint64_t> answered_ping{0};  // the last ping of its loop.  Written by the child
  // When the child has read its task, in now_ns(); 0: not yet.  Written by the child
  std::atomic<std::int64_t> task_at{0};
  std::atomic<StopRequest> stop_request{StopRequest::none};
  // The child is ready for its first call, or in the function of a process.  Written by the child
  std::atomic<bool> started{false};

  // ---- in the child ----
  // Begins a call.  Returns false if it must not: then the child ends as if it had not read the
  // call.
  bool begin(std::uint64_t id) noexcept {
    const std::uint64_t before = call.exchange(CallState{id, true}.word());
    return stop_request.load() == StopRequest::none || begin_against(before, id);
  }
  void finish(std::uint64_t id) noexcept {
    call.store(CallState{id, false}.word(), std::memory_order_release);
  }

  // ---- in the snapshot ----
  void clear() noexcept;
  // From now on the child begins no other call.  Returns false if the child does not run call `id`
  // any more, so that another call would be hit: then it may go on, or has already ended because of
  // this.
  bool request_stop_in_call(std::uint64_t id) noexcept;
  // The same for a child that has not started; false if it has.
  bool request_stop_before_start() noexcept;
  // The same, whatever the child runs.
  void request_stop() noexcept { set_stop_request(); }

private:
  bool begin_against(std::uint64_t before, std::uint64_t id) noexcept;
  bool set_stop_request() noexcept;
  void take_stop_request_back() noexcept;
};

// A new arena, all zero, for one snapshot and all its children: the slots, and behind them a crash
// record for each slot.  It costs memory only where it is touched.  nullptr: no memory.
Slot* map_slots() noexcept;
// The same in a file, which a process that is not forked from this one maps by map_slots_of().
// Returns 0 or an errno.
int make_slots(OwnedFd& file) noexcept;
// nullptr: no memory.
Slot* map_slots_of(int file) noexcept;
// Unmaps it in this process only.
void unmap_slots(Slot*) noexcept;
// The crash record of the slot with this index.
CrashRecord& crash_record(Slot* arena, std::size_t index) noexcept;

}  // namespace evparallel::detail
