// row.hpp - a queue in one piece of memory, and in none while nothing was ever in it.
// Licence: see COPYING.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace evparallel {

template <class T>
class Row {
public:
  bool empty() const noexcept { return first_ == items_.size(); }
  std::size_t size() const noexcept { return items_.size() - first_; }
  T& operator[](std::size_t i) noexcept { return items_[first_ + i]; }
  const T& operator[](std::size_t i) const noexcept { return items_[first_ + i]; }
  T& front() noexcept { return items_[first_]; }
  const T& front() const noexcept { return items_[first_]; }
  T& back() noexcept { return items_.back(); }

  void push_back(T item) { items_.push_back(std::move(item)); }
  void emplace_back() { items_.emplace_back(); }
  // Those behind are moved to the front now and then, and memory for many is given back with the
  // last of them.
  void pop_front() {
    items_[first_++] = T();
    if (first_ == items_.size()) return clear();
    if (first_ < few || first_ < items_.size() / 2) return;
    items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
  }
  void resize(std::size_t size) { items_.resize(first_ + size); }
  void clear() noexcept {
    first_ = 0;
    if (items_.capacity() > few)
      std::vector<T>().swap(items_);
    else
      items_.clear();
  }

private:
  static constexpr std::size_t few = 64;
  std::vector<T> items_;
  std::size_t first_ = 0;
};

}  // namespace evparallel
