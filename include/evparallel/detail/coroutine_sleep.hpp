// coroutine_sleep.hpp - waits for a time.
// Licence: see COPYING.  Manual: evparallel_coroutine(3).
#pragma once

#include <evparallel/detail/coroutine_task.hpp>

#include <chrono>
#include <coroutine>

namespace evparallel {

namespace detail {

class SleepAwaiter final : public Awaiter {
public:
  SleepAwaiter(Reactor& loop, std::chrono::nanoseconds time) noexcept : loop_(&loop), time_(time) {}
  SleepAwaiter(SleepAwaiter&&) = default;

  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    timer_ = loop_->after(time_, Wake<SleepAwaiter, &SleepAwaiter::go_on>(*this));
    suspend(task.promise().run(), task);
  }
  void await_resume() const {
    if (cancelled_) throw task_cancelled();
  }

private:
  void go_on() { resume(); }
  void abandon() noexcept override {
    timer_.cancel();
    cancelled_ = true;
  }

  Reactor* loop_;
  std::chrono::nanoseconds time_;
  Timer timer_{};
  bool cancelled_ = false;
};

}  // namespace detail

// co_await waits for this time, and other tasks and callbacks run.
// Fails: as Reactor::after().
[[nodiscard]] inline auto sleep(Reactor& loop, std::chrono::nanoseconds time) noexcept {
  return detail::SleepAwaiter(loop, time);
}

}  // namespace evparallel
