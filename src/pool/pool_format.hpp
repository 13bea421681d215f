// pool_format.hpp - what stands in the calls of a pool, and in their answers.
// Runs in: parent, child.  Licence: see COPYING.  Manual: evparallel_protocol(7).
#pragma once

#include <evparallel/error.hpp>
#include <evparallel/io.hpp>

#include <cstddef>
#include <cstdint>

namespace evparallel {

namespace detail {

// Behind the callable of the pool's task; what follows it is the callable of `start`.
struct PoolTail {
  void (*start)(Reader& callable) = nullptr;
  std::uint64_t max_message = 0;  // of one item's answer: the channel's own limit is for chunks
};

// The first byte of an argument.
constexpr char single_call = 0;  // its argument follows; the answer is the value as it is
constexpr char chunk_of_calls = 1;

// After that byte; then for each item its length (ItemLength) and its argument.
struct ChunkHead {
  std::int64_t cut_ns = 0;  // so long after its beginning no more items are begun.  0: all are
};
using ItemLength = std::uint32_t;

// The answer to a chunk: this, then for each item that was begun an ItemHead and its answer.
struct ChunkAnswerHead {
  std::int64_t spent_ns = 0;
};
struct ItemHead {
  std::uint64_t word = 0;  // the length, and in the lowest bit whether it is an error
  std::size_t length() const noexcept { return static_cast<std::size_t>(word >> 1); }
  bool failed() const noexcept { return (word & 1) != 0; }
};

// An answer above that takes no further item.
constexpr std::size_t chunk_bytes = std::size_t{256} << 10;
// A map keeps results until their turn comes; descriptors would be used up by that.
inline Error no_descriptors_in_results() {
  return Error(Errc::bad_message,
               "bad message: the result of an item of a map has descriptors: submit() such calls")
      .with_delivery(Delivery::started);
}

// What a chunk may need above the limit for one item.
constexpr std::size_t chunk_slack = std::size_t{1} << 20;

}  // namespace detail

}  // namespace evparallel
