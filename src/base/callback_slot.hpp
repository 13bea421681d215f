// callback_slot.hpp - a callback that may replace or release itself while it runs.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <evparallel/callback.hpp>

namespace evparallel::detail {

template <class Signature>
class CallbackSlot;

template <class... Args>
class CallbackSlot<void(Args...)> {
public:
  void set(Callback<void(Args...)> callback) {
    callback_ = std::move(callback);
    ++version_;
  }
  void release() noexcept {
    callback_ = nullptr;
    ++version_;
  }
  bool is_set() const noexcept { return running_ || static_cast<bool>(callback_); }

  // Requires: the caller keeps the object alive that contains the slot.
  void operator()(Args... args) {
    if (!callback_) return;
    Running turn(*this);
    turn.callback(std::forward<Args>(args)...);
  }

private:
  // Holds the callback while it runs and puts it back, unless it was replaced or released
  // meanwhile.
  struct Running {
    explicit Running(CallbackSlot& h)
        : handler(h),
          callback(std::move(h.callback_)),
          version(h.version_),
          was_running(h.running_) {
      h.running_ = true;
    }
    ~Running() {
      handler.running_ = was_running;
      if (handler.version_ == version) handler.callback_ = std::move(callback);
    }
    CallbackSlot& handler;
    Callback<void(Args...)> callback;
    unsigned version;
    bool was_running;
  };

  Callback<void(Args...)> callback_;
  unsigned version_ = 0;
  bool running_ = false;
};

}  // namespace evparallel::detail
