// stack_walk.hpp - the return addresses on a stack.
// Runs in: parent, child.  Licence: see COPYING.
//
// After the warm-up it allocates nothing and does not block, so that a handler of a fault may use
// it.  It needs unwind information, which C++ compilers always write.
#pragma once

#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

constexpr std::size_t longest_trace = 124;  // frames; the innermost ones

// Calls `take` with the address in each frame on this stack, the innermost first: from the frame at
// `first` (0: from here) up to the one that `outermost` is in, or until `take` returns false.
void walk_stack(std::uintptr_t first, const void* outermost,
                bool (*take)(void* argument, std::uintptr_t address), void* argument) noexcept;

// The end of the frames on this stack: above the outermost one that the unwinder finds.  Stops
// before a frame in [other, other_end): a stack from which this one was entered.
std::uintptr_t end_of_frames(std::uintptr_t other, std::uintptr_t other_end) noexcept;

// Loads what the first walk would load.
void warm_up_walks() noexcept;

}  // namespace evparallel::detail
