// child_slots.hpp - memory that the parent shares with the children of one snapshot: a slot each.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// A synchronous task is not in its loop, so no message reaches it and it sends none; a word in
// shared memory does. What a child writes is untrusted input to the others.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace evparallel {

struct CrashRecord;

constexpr std::size_t slot_count = 16384;  // also the most children that one snapshot has at a time

// The last call that a child has begun (ids rise), and whether it is at it still: one word, so that
// both are of one moment.
struct CallState {
  std::uint64_t id = 0;
  bool running = false;

  static CallState of(std::uint64_t word) noexcept { return {word >> 1, (word & 1) != 0}; }
  std::uint64_t word() const noexcept { return id << 1 | (running ? 1U : 0U); }
};

// Whether the child may begin another call.
enum class StopRequest : std::uint32_t {
  none,       // it may
  condemned,  // the snapshot is about to end it: it must begin no other call
  obeyed,     // the child has read that, and ends by itself
};

struct alignas(64) Slot {
  std::atomic<std::uint64_t> call{0};           // a CallState.  Child writes
  std::atomic<std::uint64_t> answered_ping{0};  // the last ping that its loop took.  Child writes
  std::atomic<StopRequest> sentence{StopRequest::none};
  std::atomic<bool> has_task{false};  // the child has read what it is to run.  Child writes

  // ---- in the child ----
  // Begins a call.  False: it must not, and the child is to end; as if the call had not been read.
  bool begin(std::uint64_t id) noexcept {
    const std::uint64_t before = call.exchange(CallState{id, true}.word());
    return sentence.load() == StopRequest::none || begin_against(before, id);
  }
  void finish(std::uint64_t id) noexcept {
    call.store(CallState{id, false}.word(), std::memory_order_release);
  }

  // ---- in the snapshot ----
  void clear() noexcept;
  // From now on the child begins no other call.  False: it is not at call `id` any more, so that
  // another one would be hit; it may go on then, or has ended by itself because of this.
  bool condemn_in_call(std::uint64_t id) noexcept;
  // The same whatever it is at.
  void request_stop() noexcept { set_sentence(); }

private:
  bool begin_against(std::uint64_t before, std::uint64_t id) noexcept;
  bool set_sentence() noexcept;
};

// A fresh arena, all zero, for one snapshot and all its children: the slots, and behind them a crash
// record for each.  It costs memory only where it was touched.  nullptr: no memory.
Slot* map_slots() noexcept;
// In this process only.
void unmap_slots(Slot*) noexcept;
// Of the slot with this index.
CrashRecord& crash_record(Slot* arena, std::size_t index) noexcept;

}  // namespace evparallel
