// byte_queue.cpp - the pieces of a queue of bytes.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "base/byte_queue.hpp"

#include <algorithm>

namespace evparallel::detail {

namespace {

constexpr std::size_t least = 128;

}  // namespace

ByteQueue& ByteQueue::operator=(ByteQueue&& other) noexcept {
  pieces_ = std::move(other.pieces_);
  spare_ = std::move(other.spare_);
  last_ = std::exchange(other.last_, nullptr);
  kept_ = other.kept_;
  capacity_ = std::exchange(other.capacity_, 0);
  first_ = std::exchange(other.first_, 0);
  end_ = std::exchange(other.end_, 0);
  return *this;
}

void ByteQueue::append_more(std::string_view bytes) {
  const std::size_t left = bytes.size();
  while (!bytes.empty()) {
    if (end_ == capacity_) try {
        make_room(bytes.size());
      } catch (...) {
        drop_back(left - bytes.size());
        throw;
      }
    const std::size_t now = std::min(bytes.size(), capacity_ - end_);
    std::memcpy(last_ + place_of(end_), bytes.data(), now);
    end_ += now;
    bytes.remove_prefix(now);
  }
}

// Makes room for at least one byte.
void ByteQueue::make_room(std::size_t size) {
  if (capacity_ < piece_size) return widen(size);
  if (!spare_) spare_.reset(new char[piece_size]);
  Piece& piece = pieces_.emplace_back();
  piece = std::move(spare_);
  last_ = piece.get();
  capacity_ += piece_size;
}

// Works on the only piece, or makes the first one.  If a quarter of it is free after a move, it
// need not grow.
void ByteQueue::widen(std::size_t size) {
  const std::size_t used = this->size();
  if (used + size <= capacity_ - capacity_ / 4) {
    std::memmove(last_, last_ + first_, used);
    first_ = 0;
    end_ = used;
    return;
  }
  const std::size_t wanted = std::max({least, 2 * capacity_, used + size});
  const std::size_t capacity = std::min(wanted, piece_size);
  Piece wider(new char[capacity]);
  if (pieces_.empty()) pieces_.emplace_back();
  if (used > 0) std::memcpy(wider.get(), last_ + first_, used);
  pieces_.front() = std::move(wider);
  last_ = pieces_.front().get();
  capacity_ = capacity;
  first_ = 0;
  end_ = used;
}

// Requires: all bytes of the first piece are removed, and there is another piece.
void ByteQueue::drop_piece() noexcept {
  spare_ = std::move(pieces_.front());
  pieces_.pop_front();
  first_ -= piece_size;
  end_ -= piece_size;
  capacity_ -= piece_size;
}

void ByteQueue::drop_back(std::size_t size) noexcept {
  end_ -= size;
  while (capacity_ > piece_size && end_ <= capacity_ - piece_size) {
    pieces_.pop_back();
    capacity_ -= piece_size;
  }
  if (capacity_ > 0) last_ = pieces_.back().get();
}

void ByteQueue::clear() noexcept {
  first_ = end_ = 0;
  if (capacity_ == 0) return;
  while (pieces_.size() > 1) {
    spare_ = std::move(pieces_.back());
    pieces_.pop_back();
  }
  capacity_ = std::min(capacity_, piece_size);
  last_ = pieces_.front().get();
  if (capacity_ <= kept_) return;
  pieces_.clear();
  spare_.reset();
  last_ = nullptr;
  capacity_ = 0;
}

std::string_view ByteQueue::from(std::size_t at) const noexcept {
  if (at >= size()) return {};
  const std::size_t position = first_ + at;
  const std::size_t end = std::min(end_, (position / piece_size + 1) * piece_size);
  return {pieces_[position / piece_size].get() + place_of(position), end - position};
}

}  // namespace evparallel::detail
