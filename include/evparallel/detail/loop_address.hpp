// loop_address.hpp - a loop as other threads see it, which may end before they know.
// Licence: see COPYING.
#pragma once

#include <evparallel/callback.hpp>
#include <evparallel/detail/export.hpp>

#include <list>
#include <memory>
#include <optional>

namespace evparallel {

class Reactor;

namespace detail {

class Loop;

// A callback that waits in its loop for a value that another thread passes to it.  The loop owns it,
// so that it is destroyed in the thread of the loop, also if the loop ends first.
class EVPARALLEL_API WaitingCallback {
public:
  WaitingCallback() noexcept = default;
  WaitingCallback(const WaitingCallback&) = delete;
  WaitingCallback& operator=(const WaitingCallback&) = delete;
  virtual ~WaitingCallback();
};
using WaitingCallbacks = std::list<std::unique_ptr<WaitingCallback>>;

// Any thread may use it, several at once.
class EVPARALLEL_API LoopAddress {
public:
  explicit LoopAddress(Reactor&) noexcept;
  LoopAddress(const LoopAddress&);
  LoopAddress& operator=(const LoopAddress&) = delete;
  ~LoopAddress();

  // In a process that has only inherited the loop it is false, and nothing is locked.
  bool at_home() const noexcept;
  // Fails: std::logic_error in such a process.
  void check_at_home() const;

  // Calls it from the loop, as Reactor::post does.  Returns false, and leaves the callback, if the
  // loop is closed or not at home.
  bool post(Callback<void()>& callback) const;
  using Place = WaitingCallbacks::iterator;
  // The loop keeps the callback until pass() or its own end.  Empty: it is closed.
  std::optional<Place> keep(std::unique_ptr<WaitingCallback>) const;
  // Calls `value` with that callback from the loop; then both are destroyed.  If the loop is closed
  // the callback is gone already.
  void pass(Place, Callback<void(WaitingCallback&)> value) const;

  // In the thread of the loop: takes no more posts, and destroys the callbacks that are left.
  void refuse_posts() const noexcept;

private:
  std::shared_ptr<Loop> loop_;
};

}  // namespace detail

}  // namespace evparallel
