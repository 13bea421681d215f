// ring_buffer.hpp - a queue in one piece of memory; no memory before its first use.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace evparallel::detail {

// Items are not moved until the buffer is full.  If there is no memory, nothing changes.
template <class T>
class RingBuffer {
public:
  RingBuffer() noexcept = default;
  RingBuffer(RingBuffer&& other) noexcept { *this = std::move(other); }
  RingBuffer& operator=(RingBuffer&& other) noexcept {
    elements_ = std::move(other.elements_);
    first_ = std::exchange(other.first_, 0);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  bool empty() const noexcept { return size_ == 0; }
  std::size_t size() const noexcept { return size_; }
  T& operator[](std::size_t i) noexcept { return elements_[index_of(i)]; }
  const T& operator[](std::size_t i) const noexcept { return elements_[index_of(i)]; }
  T& front() noexcept { return (*this)[0]; }
  const T& front() const noexcept { return (*this)[0]; }
  T& back() noexcept { return (*this)[size_ - 1]; }

  // Makes room for `more` items: as many calls of emplace_back() allocate nothing.
  void reserve(std::size_t more) {
    while (elements_.size() - size_ < more) grow();
  }
  T& emplace_back() {
    if (size_ == elements_.size()) grow();
    ++size_;
    return back();
  }
  void push_back(T item) { emplace_back() = std::move(item); }
  // If the memory is large it is released with the last item.
  void pop_front() {
    front() = T();
    drop_front();
  }
  // The same without a reset of the item: only if it holds nothing to release, because
  // emplace_back() may return it again.
  void drop_front() noexcept {
    first_ = index_of(1);
    if (--size_ == 0) clear();
  }
  void pop_back() {
    back() = T();
    if (--size_ == 0) clear();
  }
  void clear() noexcept {
    if (elements_.size() > few) std::vector<T>().swap(elements_);
    for (; size_ > 0 && !elements_.empty(); --size_) back() = T();
    first_ = 0;
    size_ = 0;
  }

private:
  static constexpr std::size_t few = 64;

  std::size_t index_of(std::size_t i) const noexcept {
    return (first_ + i) & (elements_.size() - 1);
  }
  void grow() {
    std::vector<T> wider(elements_.empty() ? 1 : 2 * elements_.size());
    for (std::size_t i = 0; i < size_; ++i) wider[i] = std::move((*this)[i]);
    elements_.swap(wider);
    first_ = 0;
  }

  std::vector<T> elements_;  // its size is a power of two, or 0
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

}  // namespace evparallel::detail
