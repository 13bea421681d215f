// pool_format.hpp - the format of a pool's calls and of their answers.
// Runs in: parent, child.  Licence: see COPYING.  Manual: evparallel_protocol(7).
#pragma once

#include <evparallel/pool.hpp>

#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

// Stands behind the callable of the pool's task.
struct PoolLimits {
  std::uint64_t max_message = 0;  // for the answer of one item; that of the channel is for chunks
};

// Follows the first byte of an argument that is a chunk; then come, for each item, its length (ItemLength) and its argument.
struct ChunkHead {
  std::int64_t yield_after_ns = 0;  // after this time no further item is begun; 0: all are begun
};
using ItemLength = std::uint32_t;

// The answer to a chunk: this, then for each item that was begun an ItemHead and its answer.
struct ChunkAnswerHead {
  std::int64_t spent_ns = 0;
};
struct ItemHead {
  std::uint64_t word = 0;  // the length, shifted left by one; the lowest bit: it is an error
  std::size_t length() const noexcept { return static_cast<std::size_t>(word >> 1); }
  bool failed() const noexcept { return (word & 1) != 0; }
};

// If an answer is larger than this, no further item is begun.
constexpr std::size_t chunk_bytes = std::size_t{256} << 10;
// A map keeps results until they are due, and descriptors in them would use up the limit of the
// process.
inline Error no_descriptors_in_results() {
  return Error(Errc::bad_message,
               "bad message: the result of an item of a map contains descriptors; use submit() for "
               "such calls")
      .with_delivery(Delivery::started);
}

// The bytes that a chunk may need above the limit for one item.
constexpr std::size_t chunk_slack = std::size_t{1} << 20;

}  // namespace evparallel::detail
