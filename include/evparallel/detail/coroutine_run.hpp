// coroutine_run.hpp - begins a task, and waits for it from outside of a coroutine.
// Licence: see COPYING.  Manual: evparallel_coroutine(3).
#pragma once

#include <evparallel/detail/coroutine_group.hpp>

#include <coroutine>
#include <exception>
#include <stdexcept>
#include <utility>

namespace evparallel {

namespace detail {

// Waits until the loop runs posted callbacks.
class PostAwaiter final : public Awaiter {
public:
  explicit PostAwaiter(Reactor& loop) noexcept : loop_(&loop) {}
  PostAwaiter(PostAwaiter&&) = default;
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    loop_->post(Wake<PostAwaiter, &PostAwaiter::go_on>(*this));
    suspend(task.promise().run(), task);
  }
  void await_resume() const noexcept {}

private:
  void go_on() { resume(); }
  void abandon() noexcept override {}

  Reactor* loop_;
};

template <class T>
evparallel::Task<T> fail_in_loop(Reactor& loop, std::exception_ptr failure) {
  co_await PostAwaiter(loop);
  std::rethrow_exception(failure);
}

}  // namespace detail

// The handle of a task that start() has begun.  Move-only; dropping it cancels the task and
// destroys it.  May outlive the Reactor: the task waits for ever then.
template <class T>
class [[nodiscard]] Running {
public:
  Running() noexcept = default;
  explicit Running(Task<T> task) noexcept : task_(std::move(task)) {}

  // The task gets Error{cancelled} at the co_await at which it is suspended, and runs on from there
  // before cancel() returns.  In the task itself: at its next co_await.
  void cancel() {
    if (task_) task_.frame().promise().run().cancel();
  }
  bool done() const noexcept { return task_ && task_.frame().done(); }
  // The answer, once.
  // Fails: the exception that has left the task; std::logic_error if it is not done.
  T take() {
    if (!done())
      throw std::logic_error(
          "evparallel: Running::take() was called before the task was done; done() says whether "
          "it is");
    Task<T> ended = std::move(task_);
    return ended.frame().promise().take();
  }
  // Releases the handle: the task goes on.  An exception that leaves it leaves the loop as that of
  // a callback.
  // Fails: the exception that has left the task, if it is done.
  void detach() {
    if (!task_) return;
    if (done()) return static_cast<void>(take());
    const auto frame = task_.release();
    frame.promise().run().set_ownerless(&end_detached, frame.address());
  }

private:
  static void end_detached(detail::TaskRun&, void* address) {
    const auto frame = Task<T>::Frame::from_address(address);
    const std::exception_ptr failure = frame.promise().failure();
    frame.destroy();
    if (failure) std::rethrow_exception(failure);
  }
  Task<T> task_{};
};

// Begins the task: it runs now until it waits, and then in the callbacks of `loop`.
// Fails: std::logic_error if the task was moved from.
template <class T>
[[nodiscard]] Running<T> start(Reactor& loop, Task<T> task) {
  if (!task) detail::throw_no_task();
  const auto begin = [](const Task<T>& one) {
    one.frame().promise().begin_run().begin(one.frame(), nullptr, nullptr);
  };
  begin(task);
  if (!task.frame().done() || !task.frame().promise().failure()) return Running<T>(std::move(task));
  // The exception is for the loop, if the handle is detached.
  Task<T> failed = detail::fail_in_loop<T>(loop, task.frame().promise().failure());
  begin(failed);
  return Running<T>(std::move(failed));
}

// Begins the task, and runs the loop until it has ended; other callbacks run meanwhile.  Returns its
// answer.
// Fails: the exception that leaves the task; std::logic_error if nothing is pending that could end
// it, and inside a callback of that loop; Error{cancelled} if Reactor::stop() ends the loop; an
// exception that has left another callback.  The task is cancelled then.
template <class Awaited>
auto wait(Reactor& loop, Awaited awaited) {
  detail::LoopRunner& runner = detail::runner_of(loop);
  runner.check_can_run();
  bool done = false;
  auto task = detail::task_of(std::move(awaited));
  task.frame().promise().begin_run().begin(
      task.frame(), [](detail::TaskRun&, void* flag) { *static_cast<bool*>(flag) = true; }, &done);
  if (!done && !runner.run_until(done)) {
    if (!runner.pending())
      throw std::logic_error(
          "evparallel: wait() has a task that never ends: nothing is pending in its loop");
    throw Error(Errc::cancelled, "cancelled: the loop was stopped before the task ended");
  }
  return task.frame().promise().take();
}

}  // namespace evparallel
