// begin_call.hpp - a call of a remote function or of a pool, with arguments that were kept.
// Licence: see COPYING.
#pragma once

#include <evparallel/pool.hpp>
#include <evparallel/run.hpp>

#include <tuple>
#include <utility>

namespace evparallel {

namespace detail {

template <class Callee>
constexpr bool is_callee = false;
template <class Signature>
constexpr bool is_callee<Remote<Signature>> = true;
template <class Signature>
constexpr bool is_callee<Pool<Signature>> = true;

// Whether these are not the arguments of a call of `Callee`.
template <class Callee, class... Given>
constexpr bool is_wrong_call = false;
template <class Inc, class... Args, class... Given>
constexpr bool is_wrong_call<Remote<Inc(Args...)>, Given...> =
    is_wrong_number<sizeof...(Args), Given...>;
template <class Inc, class... Args, class... Given>
constexpr bool is_wrong_call<Pool<Inc(Args...)>, Given...> =
    is_wrong_number<sizeof...(Args), Given...>;

template <class Inc, class... Args, class F>
Call begin_call(Remote<Inc(Args...)>& f, const CallOptions& options, std::tuple<Args...>& arguments,
                F&& callback) {
  return std::apply(
      [&](Args&... argument) {
        return f(options, static_cast<Moved<Args>>(argument)..., std::forward<F>(callback));
      },
      arguments);
}
template <class Inc, class... Args, class F>
Call begin_call(Pool<Inc(Args...)>& f, const CallOptions& options, std::tuple<Args...>& arguments,
                F&& callback) {
  return std::apply(
      [&](Args&... argument) {
        return f.submit(options, static_cast<Moved<Args>>(argument)..., std::forward<F>(callback));
      },
      arguments);
}

}  // namespace detail

}  // namespace evparallel
