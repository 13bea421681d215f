// byte_queue.hpp - a queue of bytes: appended at the end and removed at the front.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// Few bytes are in one piece that grows as needed; many are in pieces of one size, which are never
// moved.
#pragma once

#include "base/ring_buffer.hpp"

#include <evparallel/detail/short_text.hpp>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

namespace evparallel::detail {

class ByteQueue {
public:
  static constexpr std::size_t piece_size = 32 * 1024;

  // When it becomes empty it releases its memory if that is more than `kept`, and otherwise all but
  // two pieces.
  explicit ByteQueue(std::size_t kept = piece_size) noexcept : kept_(kept) {}
  ByteQueue(ByteQueue&& other) noexcept : kept_(other.kept_) { *this = std::move(other); }
  ByteQueue& operator=(ByteQueue&&) noexcept;

  // Reserves memory for `size` bytes, at most a piece.  Requires: it has none yet.
  void reserve(std::size_t size) { widen(size); }

  bool empty() const noexcept { return size() == 0; }
  std::size_t size() const noexcept { return end_ - first_; }

  void append(std::string_view bytes) {
    if (bytes.size() > capacity_ - end_) return append_more(bytes);
    if (bytes.empty()) return;
    char* const to = last_ + place_of(end_);
    if (bytes.size() <= most_in_line)
      copy_short(to, bytes.data(), bytes.size());
    else
      std::memcpy(to, bytes.data(), bytes.size());
    end_ += bytes.size();
  }
  void drop_front(std::size_t size) noexcept {
    first_ += size;
    if (first_ == end_) return clear();
    while (first_ >= piece_size) drop_piece();
  }
  void drop_back(std::size_t size) noexcept;
  void clear() noexcept;

  // The contiguous bytes from `at` on; empty at the end.
  std::string_view from(std::size_t at) const noexcept;

private:
  static std::size_t place_of(std::size_t position) noexcept { return position % piece_size; }
  void append_more(std::string_view bytes);
  void make_room(std::size_t size);
  void widen(std::size_t size);
  void drop_piece() noexcept;

  using Piece = std::unique_ptr<char[]>;
  RingBuffer<Piece> pieces_;  // more than one: each of piece_size
  Piece spare_;               // the last piece that was removed
  char* last_ = nullptr;
  std::size_t kept_;
  // Positions, counted from the beginning of the first piece.
  std::size_t capacity_ = 0;
  std::size_t first_ = 0;
  std::size_t end_ = 0;
};

}  // namespace evparallel::detail
