// object_pool.hpp - what many objects need now and then and few at the same time: lent, and used again.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// What was used keeps its memory on the shelf, so that who has use for it for a moment only, again
// and again, allocates nothing; and who has none holds none.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <utility>

namespace evparallel {

template <class T>
class ObjectPool {
public:
  std::unique_ptr<T> take() {
    return count_ > 0 ? std::move(items_[--count_]) : std::make_unique<T>();
  }
  // Requires: it is as a new one, but for memory that it keeps.
  void put(std::unique_ptr<T> item) noexcept {
    if (count_ < items_.size()) items_[count_++] = std::move(item);
  }

private:
  std::array<std::unique_ptr<T>, 8> items_;
  std::size_t count_ = 0;
};

// A member that is there from its first use until it is given back.
template <class T>
class Pooled {
public:
  // Made at the first use, and kept.
  Pooled() noexcept = default;
  explicit Pooled(std::unique_ptr<T> item) noexcept : item_(std::move(item)) {}
  // Requires: the shelf lives longer.
  explicit Pooled(ObjectPool<T>& shelf) noexcept : shelf_(&shelf) {}

  T* operator->() { return &**this; }
  T& operator*() {
    if (!item_) begin();
    return *item_;
  }
  // Nothing, before the first use.
  T* peek() noexcept { return item_.get(); }
  const T* peek() const noexcept { return item_.get(); }
  // Whether it is there, and need not be.
  bool can_be_given_back() const noexcept { return shelf_ && item_; }
  // Requires: as Shelf::put().
  void give_back() noexcept {
    if (can_be_given_back()) shelf_->put(std::move(item_));
  }

private:
  // Apart from the usual case, which is a look at a pointer.
  [[gnu::noinline]] void begin() { item_ = shelf_ ? shelf_->take() : std::make_unique<T>(); }
  std::unique_ptr<T> item_;
  ObjectPool<T>* shelf_ = nullptr;
};

}  // namespace evparallel
