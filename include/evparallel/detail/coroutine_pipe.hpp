// coroutine_pipe.hpp - waits for the messages of a pipe, and for the end of a process.
// Licence: see COPYING.  Manual: evparallel_coroutine(3).
#pragma once

#include <evparallel/detail/coroutine_task.hpp>
#include <evparallel/process.hpp>

#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace evparallel {

namespace detail {

template <class In, class Out>
class NextAwaiter final : public Awaiter {
public:
  explicit NextAwaiter(const Pipe<In, Out>& pipe) : core_(pipe.core()), get_(pipe.codecs().get) {}
  NextAwaiter(NextAwaiter&&) = default;
  ~NextAwaiter() {
    if (suspended()) core_->stop_waiting_for_message();
  }

  bool await_ready() const noexcept { return core_->input_over(); }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    core_->wait_for_message(Wake<NextAwaiter, &NextAwaiter::end>(*this));
    suspend(task.promise().run(), task);
  }
  std::optional<In> await_resume() {
    if (error_) throw Error(*error_);
    return std::move(value_);
  }

private:
  void end(Reader* in, const Error* error) {
    if (error) error_.emplace(*error);
    if (in) try {
        value_.emplace(get_(*in));
      } catch (const Error& bad) {
        error_.emplace(bad);
      }
    resume();
  }
  void abandon() noexcept override {
    core_->stop_waiting_for_message();
    error_.emplace(task_cancelled());
  }

  std::shared_ptr<PipeInterface> core_;
  In (*get_)(Reader&);
  std::optional<In> value_{};
  std::optional<Error> error_{};
};

template <class In, class Out>
class SentAwaiter final : public Awaiter {
public:
  SentAwaiter(const Pipe<In, Out>& pipe, Out&& value) : pipe_(pipe), value_(std::move(value)) {}
  SentAwaiter(SentAwaiter&&) = default;

  bool await_ready() const noexcept { return false; }
  template <class Promise>
  bool await_suspend(std::coroutine_handle<Promise> task) {
    check_open();
    if (pipe_.send(std::move(value_))) return false;
    pipe_.core()->wait_for_room(Wake<SentAwaiter, &SentAwaiter::go_on>(*this));
    suspend(task.promise().run(), task);
    return true;
  }
  void await_resume() const {
    if (cancelled_) throw task_cancelled();
    check_open();
  }

private:
  void check_open() const {
    if (pipe_.closed())
      throw Error(Errc::closed, "closed: this direction of the pipe has ended before sent()");
  }
  void go_on() { resume(); }
  void abandon() noexcept override { cancelled_ = true; }

  Pipe<In, Out> pipe_;
  Out value_;
  bool cancelled_ = false;
};

class EndedAwaiter final : public Awaiter {
public:
  EndedAwaiter(std::shared_ptr<PipeInterface> pipe, std::shared_ptr<ProcessInterface> process)
      : pipe_(std::move(pipe)), process_(std::move(process)) {
    if (!process_)
      throw std::logic_error("evparallel: ended() was called for a Process that was detached");
  }
  EndedAwaiter(EndedAwaiter&&) = default;

  bool await_ready() const noexcept { return process_->exit_status() != nullptr; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    process_->wait_for_exit(Wake<EndedAwaiter, &EndedAwaiter::go_on>(*this));
    suspend(task.promise().run(), task);
    pipe_->drop_unread();
  }
  ExitStatus await_resume() const {
    const ExitStatus* const status = process_->exit_status();
    if (cancelled_ || !status) throw task_cancelled();
    return *status;
  }

private:
  void go_on() { resume(); }
  void abandon() noexcept override { cancelled_ = true; }

  std::shared_ptr<PipeInterface> pipe_;
  std::shared_ptr<ProcessInterface> process_;
  bool cancelled_ = false;
};

}  // namespace detail

// co_await gives the next message, or nothing after the last one.  Between two of these the pipe
// reads nothing, and the end is not handled, so that this direction stays open until close().  Takes
// the place of on_message, on_end and on_error.
// Fails: Error for a message that could not be read, after which the pipe goes on, and for a broken
// end; std::logic_error if on_message is set, or another task waits for the same pipe.
template <class In, class Out>
[[nodiscard]] auto next(const Pipe<In, Out>& pipe) {
  return detail::NextAwaiter<In, Out>(pipe);
}

// Keeps the value now; co_await sends it, and waits while more than Options::high_water bytes wait.
// Fails: Error{closed} if this direction has ended; otherwise as Pipe::send().
template <class In, class Out>
[[nodiscard]] auto sent(const Pipe<In, Out>& pipe, std::type_identity_t<Out> value) {
  return detail::SentAwaiter<In, Out>(pipe, std::move(value));
}

// co_await gives the ExitStatus of the child when it has ended, also if it has ended before.
// Messages that nobody takes are dropped meanwhile.
// Fails: Error{cancelled} if the Process is dropped; std::logic_error after detach().
template <class Inc, class Out>
[[nodiscard]] auto ended(const Process<Inc, Out>& process) {
  return detail::EndedAwaiter(process.core(), process.process_core());
}

}  // namespace evparallel
