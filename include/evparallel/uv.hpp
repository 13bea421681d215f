// uv.hpp - a Reactor inside of a loop of libuv.
// Licence: see COPYING.  Manual: evparallel_loops(3).
//
// Needs libuv 1.0 or later; evparallel.hpp does not include this file.
#pragma once

#include <evparallel/detail/driven_reactor.hpp>
#include <evparallel/reactor.hpp>

#include <uv.h>

#include <exception>
#include <memory>
#include <system_error>
#include <utility>

namespace evparallel {

// A Reactor of its own whose turns a uv_loop_t makes.  It is used in the thread that runs the loop.
// It keeps uv_run() from returning while it lives; after its end uv_run() must run once more, as for
// each handle that was closed.  Move-only; a callback may destroy it.
class UvReactor {
public:
  // Fails: std::system_error.
  explicit UvReactor(uv_loop_t* loop) : state_(std::make_shared<detail::DrivenReactor>()) {
    auto handle = std::make_unique<Handle>();
    handle->state = state_;
    check(::uv_poll_init(loop, &handle->poll, state_->loop()->fd()));
    handle->poll.data = handle.get();
    handle_ = handle.release();
    if (const int error = ::uv_poll_start(&handle_->poll, UV_READABLE, &turn)) {
      close();
      check(error);
    }
  }
  UvReactor(UvReactor&& other) noexcept
      : state_(std::move(other.state_)), handle_(std::exchange(other.handle_, nullptr)) {}
  UvReactor& operator=(UvReactor&& other) noexcept {
    UvReactor taken(std::move(other));
    state_.swap(taken.state_);
    std::swap(handle_, taken.handle_);
    return *this;
  }
  // Destroys the Reactor, as ~Reactor() does.
  ~UvReactor() {
    if (handle_) close();
  }

  Reactor& operator*() const noexcept { return *state_->loop(); }
  Reactor* operator->() const noexcept { return state_->loop(); }

  // Called with an exception that leaves a callback.  Without it, or if it throws, such an exception
  // ends the program, because it cannot pass through libuv.
  void on_exception(Callback<void(std::exception_ptr)> callback) {
    state_->on_exception(std::move(callback));
  }

private:
  struct Handle {
    uv_poll_t poll{};
    std::shared_ptr<detail::DrivenReactor> state{};
  };

  static void check(int error) {
    if (error < 0)
      throw std::system_error(-error, std::generic_category(),
                              "evparallel: the loop of libuv refused a Reactor");
  }
  // libuv needs the handle until it has called forget().
  void close() noexcept {
    ::uv_close(reinterpret_cast<uv_handle_t*>(&handle_->poll), &forget);
    handle_ = nullptr;
    state_->end();
  }
  static void turn(uv_poll_t* poll, int, int) {
    const auto state = static_cast<Handle*>(poll->data)->state;
    state->turn();
  }
  static void forget(uv_handle_t* handle) { delete static_cast<Handle*>(handle->data); }

  std::shared_ptr<detail::DrivenReactor> state_;
  Handle* handle_ = nullptr;
};

}  // namespace evparallel
