// object_pool.hpp - a pool of objects that many users need for a short time and few at once.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// A pooled object keeps its memory, so a user that needs it again and again for a short time
// allocates nothing, and a user that does not need it holds none.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <utility>

namespace evparallel::detail {

template <class T>
class ObjectPool {
public:
  std::unique_ptr<T> take() {
    return count_ > 0 ? std::move(items_[--count_]) : std::make_unique<T>();
  }
  // Requires: the object is in the state of a new one, except for memory that it keeps.
  void put(std::unique_ptr<T> item) noexcept {
    if (count_ < items_.size()) items_[count_++] = std::move(item);
  }

private:
  std::array<std::unique_ptr<T>, 8> items_;
  std::size_t count_ = 0;
};

// A member that exists from its first use until it is returned to the pool.
template <class T>
class Pooled {
public:
  // Without a pool: made at the first use, and kept.
  Pooled() noexcept = default;
  explicit Pooled(std::unique_ptr<T> item) noexcept : item_(std::move(item)) {}
  // Requires: the pool lives longer.
  explicit Pooled(ObjectPool<T>& shelf) noexcept : object_pool_(&shelf) {}

  T* operator->() { return &**this; }
  T& operator*() {
    if (!item_) begin();
    return *item_;
  }
  // nullptr before the first use.
  T* peek() noexcept { return item_.get(); }
  const T* peek() const noexcept { return item_.get(); }
  // It exists, and a pool can take it back.
  bool can_be_given_back() const noexcept { return object_pool_ && item_; }
  // Requires: as ObjectPool::put().
  void give_back() noexcept {
    if (can_be_given_back()) object_pool_->put(std::move(item_));
  }

private:
  // Not inlined, so that the usual case is a check of a pointer.
  [[gnu::noinline]] void begin() {
    item_ = object_pool_ ? object_pool_->take() : std::make_unique<T>();
  }
  std::unique_ptr<T> item_;
  ObjectPool<T>* object_pool_ = nullptr;
};

}  // namespace evparallel::detail
