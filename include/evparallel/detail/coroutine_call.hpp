// coroutine_call.hpp - waits for one call.
// Licence: see COPYING.  Manual: evparallel_coroutine(3).
#pragma once

#include <evparallel/detail/begin_call.hpp>
#include <evparallel/detail/coroutine_task.hpp>

#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace evparallel {

namespace detail {

enum class CallForm : bool { value, result };

template <CallForm form, class Callee, class Inc, class... Args>
class CallAwaiter final : public Awaiter {
public:
  CallAwaiter(Callee& callee, const CallOptions& options, Args&&... arguments)
      : callee_(&callee), options_(options), arguments_(std::move(arguments)...) {}
  CallAwaiter(CallAwaiter&&) = default;
  ~CallAwaiter() {
    if (suspended()) call_.cancel();
  }

  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    call_ =
        begin_call(*callee_, options_, arguments_, Wake<CallAwaiter, &CallAwaiter::answer>(*this));
    suspend(task.promise().run(), task);
  }
  auto await_resume() {
    if constexpr (form == CallForm::result)
      return std::move(*result_);
    else if constexpr (std::is_void_v<Inc>)
      result_->value();
    else
      return Inc(std::move(*result_).value());
  }

private:
  void answer(Result<Inc>&& result) {
    result_.emplace(std::move(result));
    resume();
  }
  void abandon() noexcept override {
    call_.cancel();
    result_.emplace(task_cancelled());
  }

  Callee* callee_;
  CallOptions options_;
  std::tuple<Args...> arguments_;
  Call call_{};
  std::optional<Result<Inc>> result_;
};

template <CallForm form, class Inc, class... Args, template <class> class Callee>
auto make_call(Callee<Inc(Args...)>& f, const CallOptions& options, Args... arguments) {
  return CallAwaiter<form, Callee<Inc(Args...)>, Inc, Args...>(f, options, std::move(arguments)...);
}

}  // namespace detail

// A call of f, a Remote or a Pool, which must live until it is awaited.  The arguments are converted
// and kept now; the call is made by co_await, which gives the answer.  If the task is cancelled or
// destroyed meanwhile, so is the call.
// Fails: at co_await the Error of the call; std::logic_error after close().
template <template <class> class Callee, class Inc, class... Args>
requires detail::is_callee<Callee<Inc(Args...)>> [[nodiscard]] auto call(
    Callee<Inc(Args...)>& f, std::type_identity_t<Args>... arguments) {
  return detail::make_call<detail::CallForm::value>(f, CallOptions{}, std::move(arguments)...);
}
template <template <class> class Callee, class Inc, class... Args>
requires detail::is_callee<Callee<Inc(Args...)>> [[nodiscard]] auto call(
    Callee<Inc(Args...)>& f, const CallOptions& options, std::type_identity_t<Args>... arguments) {
  return detail::make_call<detail::CallForm::value>(f, options, std::move(arguments)...);
}
// The same; co_await gives a Result.
template <template <class> class Callee, class Inc, class... Args>
requires detail::is_callee<Callee<Inc(Args...)>> [[nodiscard]] auto call_result(
    Callee<Inc(Args...)>& f, std::type_identity_t<Args>... arguments) {
  return detail::make_call<detail::CallForm::result>(f, CallOptions{}, std::move(arguments)...);
}
template <template <class> class Callee, class Inc, class... Args>
requires detail::is_callee<Callee<Inc(Args...)>> [[nodiscard]] auto call_result(
    Callee<Inc(Args...)>& f, const CallOptions& options, std::type_identity_t<Args>... arguments) {
  return detail::make_call<detail::CallForm::result>(f, options, std::move(arguments)...);
}
// Reports the mistake if the number of arguments is wrong.
template <class Callee, class... Given>
requires detail::is_wrong_call<Callee, Given...> void call(Callee&, const Given&...) {
  static_assert(detail::always_false<Callee>,
                "evparallel: call() takes a remote function or a pool and then its arguments, as "
                "many as it has; CallOptions may be in front of them");
}

}  // namespace evparallel
