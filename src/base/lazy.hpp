// lazy.hpp - a member that most objects never use: it costs a pointer until they do.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <memory>

namespace evparallel::detail {

template <class T>
class Lazy {
public:
  T& operator*() { return get(); }
  T* operator->() { return &get(); }
  // nullptr before the first use.
  const T* peek() const noexcept { return value_.get(); }
  T* peek() noexcept { return value_.get(); }
  void reset() noexcept { value_.reset(); }

private:
  T& get() {
    if (!value_) value_ = std::make_unique<T>();
    return *value_;
  }
  std::unique_ptr<T> value_;
};

}  // namespace evparallel::detail
