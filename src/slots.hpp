// slots.hpp - memory that the parent shares with the children of one snapshot: a slot each.
// Licence: see COPYING.
//
// A synchronous task is not in its loop, so no message reaches it and it sends none; a word in
// shared memory does. What a child writes is untrusted input to the parent.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace evparallel {

constexpr std::size_t slot_count = 16384;  // also the most children that one snapshot has at a time

struct alignas(64) Slot {
  std::atomic<std::uint64_t> started{
      0};  // id of the last call that the child has begun; ids rise.  Child writes
};

// A fresh arena, all zero, for one snapshot and all its children.  It costs memory only where it
// was touched, and stays mapped as long as the process lives, since a handle may look at it at any
// time.  nullptr: no memory.
Slot* map_slots() noexcept;

}  // namespace evparallel
