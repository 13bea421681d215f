// result.hpp - a value or an Error, delivered exactly once.
// Licence: see COPYING.  Manual: evparallel_error(3).
#pragma once

#include <evparallel/error.hpp>

#include <utility>
#include <variant>

namespace evparallel {

// value() of a Result that holds an error throws that error.  operator* and -> do so, too, because
// a forgotten check must not read memory that holds something else.
template <class T>
class Result {
public:
  using value_type = T;

  Result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : held_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const noexcept { return held_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  T& value() & { return check(), std::get<0>(held_); }
  const T& value() const& { return check(), std::get<0>(held_); }
  T&& value() && { return check(), std::get<0>(std::move(held_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  template <class U>
  T value_or(U&& other) const& {
    return has_value() ? std::get<0>(held_) : static_cast<T>(std::forward<U>(other));
  }
  template <class U>
  T value_or(U&& other) && {
    return has_value() ? std::get<0>(std::move(held_)) : static_cast<T>(std::forward<U>(other));
  }

  // Requires: !has_value(); std::bad_variant_access otherwise.
  const Error& error() const { return std::get<1>(held_); }

private:
  void check() const {
    if (!has_value()) throw std::get<1>(held_);
  }
  std::variant<T, Error> held_;
};

// The answer of a task that returns nothing.
template <>
class Result<void> {
public:
  using value_type = void;

  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  bool has_value() const noexcept { return !error_; }
  explicit operator bool() const noexcept { return has_value(); }
  void value() const {
    if (error_) throw *error_;
  }
  void operator*() const { value(); }
  const Error& error() const { return error_.value(); }

private:
  std::optional<Error> error_;
};

}  // namespace evparallel
