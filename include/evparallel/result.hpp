// result.hpp - a value or an Error, delivered exactly once.
// Licence: see COPYING.  Manual: evparallel_error(3).
#pragma once

#include <evparallel/error.hpp>

#include <functional>
#include <utility>
#include <variant>

namespace evparallel {

template <class T>
class Result;

namespace detail {

// Fails: std::logic_error, always: error() of a Result that holds a value.
[[noreturn]] EVPARALLEL_API void throw_no_error();

template <class T>
constexpr bool is_result = false;
template <class T>
constexpr bool is_result<Result<T>> = true;

// ---- the functions that a Result is passed to ----

// `R` is const Result<T>& or Result<T>; its value is passed as an lvalue or an rvalue accordingly.
template <class F, class R, class T = typename std::decay_t<R>::value_type>
constexpr bool takes_value = std::is_invocable_v<F, decltype(*std::declval<R>())>;
template <class F, class R>
constexpr bool takes_value<F, R, void> = std::is_invocable_v<F>;

template <class F, class R>
decltype(auto) call_with_value(F&& f, R&& result) {
  if constexpr (std::is_void_v<typename std::decay_t<R>::value_type>)
    return std::invoke(std::forward<F>(f));
  else
    return std::invoke(std::forward<F>(f), *std::forward<R>(result));
}

template <class F, class R>
auto map_result(F&& f, R&& result) {
  static_assert(takes_value<F, R>,
                "evparallel: the function of Result::map must take the value; that of a "
                "Result<void> takes nothing");
  using U = std::remove_cv_t<decltype(call_with_value(std::forward<F>(f), std::declval<R>()))>;
  static_assert(!std::is_reference_v<U>,
                "evparallel: the function of Result::map must return a value or nothing, not a "
                "reference; declare its return type, as in [](const T& value) -> U");
  static_assert(!std::is_base_of_v<Error, U>,
                "evparallel: the function of Result::map must not return an Error; let it return a "
                "Result, and pass it to and_then()");
  if (!result) return Result<U>(std::forward<R>(result).error());
  if constexpr (std::is_void_v<U>) {
    call_with_value(std::forward<F>(f), std::forward<R>(result));
    return Result<U>();
  } else {
    return Result<U>(call_with_value(std::forward<F>(f), std::forward<R>(result)));
  }
}

template <class F, class R>
auto and_then(F&& f, R&& result) {
  static_assert(takes_value<F, R>,
                "evparallel: the function of Result::and_then must take the value; that of a "
                "Result<void> takes nothing");
  using Next = std::decay_t<decltype(call_with_value(std::forward<F>(f), std::declval<R>()))>;
  static_assert(is_result<Next>,
                "evparallel: the function of Result::and_then must return a Result; pass one that "
                "returns a value or nothing to map()");
  if (!result) return Next(std::forward<R>(result).error());
  return Next(call_with_value(std::forward<F>(f), std::forward<R>(result)));
}

template <class F, class R>
std::decay_t<R> or_else(F&& f, R&& result) {
  using Same = std::decay_t<R>;
  static_assert(std::is_invocable_v<F, decltype(std::declval<R>().error())>,
                "evparallel: the function of Result::or_else must take the Error");
  static_assert(
      std::is_same_v<std::decay_t<std::invoke_result_t<F, decltype(std::declval<R>().error())>>,
                     Same>,
      "evparallel: the function of Result::or_else must return a Result of the same type");
  if (result) return std::forward<R>(result);
  return std::invoke(std::forward<F>(f), std::forward<R>(result).error());
}

}  // namespace detail

// value() of a Result that holds an error throws that error.  operator* and -> do so, too, because
// a forgotten check must not read memory that holds something else.
//
// map, and_then and or_else are transform, and_then and or_else of std::expected (C++23).
template <class T>
class Result {
public:
  using value_type = T;
  using error_type = Error;

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
  template <class U = T>
  T value_or(U&& other) const& {
    check_other<U>();
    return has_value() ? std::get<0>(held_) : static_cast<T>(std::forward<U>(other));
  }
  template <class U = T>
  T value_or(U&& other) && {
    check_other<U>();
    return has_value() ? std::get<0>(std::move(held_)) : static_cast<T>(std::forward<U>(other));
  }

  // Fails: std::logic_error if there is a value.
  const Error& error() const {
    if (has_value()) detail::throw_no_error();
    return std::get<1>(held_);
  }

  // Result<U>(f(value)), or the error.  U may be void.
  template <class F>
  auto map(F&& f) const& {
    return detail::map_result(std::forward<F>(f), *this);
  }
  template <class F>
  auto map(F&& f) && {
    return detail::map_result(std::forward<F>(f), std::move(*this));
  }
  // f(value), which is a Result<U>, or the error.
  template <class F>
  auto and_then(F&& f) const& {
    return detail::and_then(std::forward<F>(f), *this);
  }
  template <class F>
  auto and_then(F&& f) && {
    return detail::and_then(std::forward<F>(f), std::move(*this));
  }
  // The value, or f(error), which is a Result<T>.
  template <class F>
  Result or_else(F&& f) const& {
    return detail::or_else(std::forward<F>(f), *this);
  }
  template <class F>
  Result or_else(F&& f) && {
    return detail::or_else(std::forward<F>(f), std::move(*this));
  }

private:
  void check() const {
    if (!has_value()) throw std::get<1>(held_);
  }
  template <class U>
  static void check_other() noexcept {
    static_assert(std::is_convertible_v<U, T>,
                  "evparallel: the argument of Result::value_or must convert implicitly to the "
                  "type of the value; cast it explicitly");
  }
  std::variant<T, Error> held_;
};

// The answer of a task that returns nothing.
template <>
class Result<void> {
public:
  using value_type = void;
  using error_type = Error;

  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  bool has_value() const noexcept { return !error_; }
  explicit operator bool() const noexcept { return has_value(); }
  void value() const {
    if (error_) throw *error_;
  }
  void operator*() const { value(); }
  const Error& error() const {
    if (!error_) detail::throw_no_error();
    return *error_;
  }

  // As those of Result<T>; f of map and and_then takes nothing.
  template <class F>
  auto map(F&& f) const {
    return detail::map_result(std::forward<F>(f), *this);
  }
  template <class F>
  auto and_then(F&& f) const {
    return detail::and_then(std::forward<F>(f), *this);
  }
  template <class F>
  Result or_else(F&& f) const {
    return detail::or_else(std::forward<F>(f), *this);
  }

private:
  std::optional<Error> error_;
};

}  // namespace evparallel
