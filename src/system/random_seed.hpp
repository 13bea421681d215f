// random_seed.hpp - random state that differs from child to child.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstdint>

namespace evparallel::detail {

// A seed from the kernel.
std::uint64_t fresh_seed() noexcept;
// The seed of the `index`th child of a process whose own seed is `seed`.
std::uint64_t seed_of_child(std::uint64_t seed, std::uint64_t index) noexcept;
// Seeds the C library's generators, unless this was their last seed.
void seed_generators(std::uint64_t) noexcept;
// In the child: sets child_seed(), and seeds the C library's generators with it.
void take_seed(std::uint64_t) noexcept;
std::uint64_t taken_seed() noexcept;

}  // namespace evparallel::detail
