// asio.hpp - a Reactor inside of an io_context of Asio.
// Licence: see COPYING.  Manual: evparallel_loops(3).
//
// Needs Asio 1.18 or later, without Boost; evparallel.hpp does not include this file.
#pragma once

#include <evparallel/reactor.hpp>

#include <asio/any_io_executor.hpp>
#include <asio/error_code.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/basic_stream_descriptor.hpp>

#include <memory>
#include <type_traits>
#include <utility>

namespace evparallel {

// A Reactor of its own whose turns the executor makes.  If several threads run the context, the
// executor is a strand, and everything that uses the Reactor runs in that strand.
//
// It keeps io_context::run() from returning while it lives.  An exception that leaves a callback
// leaves io_context::run(), which may be called again.  Move-only; a callback may destroy it.  The
// context must outlive it.
template <class Executor = asio::any_io_executor>
class AsioReactor {
public:
  // Fails: std::system_error.
  explicit AsioReactor(const Executor& executor) : state_(std::make_shared<State>(executor)) {
    // Another executor may be, or may contain, a strand.
    constexpr bool has_one_thread = std::is_same_v<Executor, asio::io_context::executor_type>;
    if constexpr (!has_one_thread) state_->loop->bind_to_no_thread();
    wait(state_);
  }
  AsioReactor(AsioReactor&&) noexcept = default;
  AsioReactor& operator=(AsioReactor&& other) noexcept {
    AsioReactor(std::move(other)).state_.swap(state_);
    return *this;
  }
  // Destroys the Reactor, as ~Reactor() does.
  ~AsioReactor() {
    if (state_) state_->end();
  }

  Reactor& operator*() const noexcept { return *state_->loop; }
  Reactor* operator->() const noexcept { return state_->loop.get(); }

private:
  struct State {
    explicit State(const Executor& executor)
        : loop(std::make_unique<Reactor>()), descriptor(executor, loop->fd()) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() { end(); }

    // The number belongs to the Reactor, which closes it.
    void end() noexcept {
      if (!loop) return;
      descriptor.release();
      loop.reset();
    }

    std::unique_ptr<Reactor> loop;
    asio::posix::basic_stream_descriptor<Executor> descriptor;
  };

  static void wait(const std::shared_ptr<State>& state) {
    state->descriptor.async_wait(state->descriptor.wait_read,
                                 [state](const asio::error_code& error) {
                                   if (!error && state->loop) turn(state);
                                 });
  }
  static void turn(const std::shared_ptr<State>& state) {
    try {
      state->loop->poll();
    } catch (...) {
      if (state->loop) wait(state);
      throw;
    }
    if (state->loop) wait(state);
  }

  std::shared_ptr<State> state_;
};

// auto loop = asio_reactor(context.get_executor());  run(*loop, f);
template <class Executor>
[[nodiscard]] AsioReactor<Executor> asio_reactor(const Executor& executor) {
  return AsioReactor<Executor>(executor);
}

}  // namespace evparallel
