// random_seed.hpp - random state that differs from child to child.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstdint>

namespace evparallel {

// From the kernel.
std::uint64_t fresh_seed() noexcept;
// Of the `index`th child asked for by a process whose own is `seed`.
std::uint64_t seed_of_child(std::uint64_t seed, std::uint64_t index) noexcept;
// The C library's generators, unless they were seeded with this last.
void seed_generators(std::uint64_t) noexcept;
// In the child: it is child_seed() from now on, and what the C library's generators are seeded with.
void take_seed(std::uint64_t) noexcept;
std::uint64_t taken_seed() noexcept;

}  // namespace evparallel
