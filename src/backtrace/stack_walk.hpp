// stack_walk.hpp - who has called whom, as return addresses.
// Runs in: parent, child.  Licence: see COPYING.
//
// Allocates nothing and waits for nothing once it was warmed up, so that a handler of a fault may
// use it.  Only where there is unwind information: what a compiler for C++ always writes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace evparallel {

constexpr std::size_t longest_trace = 124;  // frames; the innermost ones

// Calls `take` with the address in each frame that is under way on this stack, the innermost first:
// from the frame that is at `first` (0: from here) up to the one that `outermost` is in, or until
// `take` returns false.
void walk_stack(std::uintptr_t first, const void* outermost,
                bool (*take)(void* argument, std::uintptr_t address), void* argument) noexcept;

// Where the frames under way on this stack end: above the outermost one that the unwinder finds.  It
// stops short of a frame that stands in [other, other_end): a stack from which this one was entered.
std::uintptr_t end_of_frames(std::uintptr_t other, std::uintptr_t other_end) noexcept;

// Loads what the first walk would load.
void warm_up_walks() noexcept;

}  // namespace evparallel
