// start_task.hpp - what a child runs once, before its own function.
// Licence: see COPYING.  Manual: evparallel_run(3).
#pragma once

#include <evparallel/task.hpp>

#include <string>
#include <type_traits>
#include <vector>

namespace evparallel {

// Options::on_start: void(), sent like the function of a child; bind() gives it arguments.  Empty
// by default.
class StartTask {
public:
  StartTask() noexcept = default;
  // Fails: std::logic_error for a callable that cannot be sent; Error{bad_message} from bind().
  template <class F, class = std::enable_if_t<!std::is_same_v<F, StartTask>>>
  StartTask(F f) : entry_(&run<F>) {
    static_assert(
        std::is_invocable_v<F&>,
        "evparallel: on_start is called without arguments; bind them with bind(f, args...)");
    Writer callable;
    detail::CallableCodec<F>::serialize(callable, f);
    callable_ = std::move(callable.bytes());
    detail::CallableCodec<F>::functions(f, functions_);
  }

  explicit operator bool() const noexcept { return entry_ != nullptr; }

  // For the other parts of the library.
  using Entry = void (*)(Reader& callable);
  Entry entry() const noexcept { return entry_; }
  const detail::FunctionList& functions() const noexcept { return functions_; }
  const std::string& callable() const noexcept { return callable_; }

private:
  template <class F>
  static void run(Reader& callable) {
    F f = detail::CallableCodec<F>::deserialize(callable);
    detail::call_task(f);
  }

  Entry entry_ = nullptr;
  detail::FunctionList functions_{};
  std::string callable_{};
};

}  // namespace evparallel
