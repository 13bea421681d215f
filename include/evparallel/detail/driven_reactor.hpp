// driven_reactor.hpp - a Reactor whose turns a loop written in C makes.
// Licence: see COPYING.
#pragma once

#include <evparallel/callback.hpp>
#include <evparallel/reactor.hpp>

#include <exception>
#include <memory>
#include <utility>

namespace evparallel::detail {

class DrivenReactor {
public:
  // Null after end(), which a callback may call.
  Reactor* loop() const noexcept { return loop_.get(); }
  void end() noexcept { loop_.reset(); }
  void on_exception(Callback<void(std::exception_ptr)> callback) {
    on_exception_ = std::move(callback);
  }

  // Requires: the caller keeps this object alive.  No exception passes through C.
  void turn() noexcept {
    try {
      if (loop_) loop_->poll();
    } catch (...) {
      if (!on_exception_) std::terminate();
      // It may replace itself.
      Callback<void(std::exception_ptr)> callback = std::move(on_exception_);
      callback(std::current_exception());
      if (!on_exception_) on_exception_ = std::move(callback);
    }
  }

private:
  std::unique_ptr<Reactor> loop_ = std::make_unique<Reactor>();
  Callback<void(std::exception_ptr)> on_exception_ = nullptr;
};

}  // namespace evparallel::detail
