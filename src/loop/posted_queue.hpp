// posted_queue.hpp - callbacks that other threads post to a loop.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include "base/ring_buffer.hpp"
#include "system/descriptor.hpp"

#include <evparallel/callback.hpp>
#include <evparallel/detail/loop_address.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>

namespace evparallel::detail {

// Thread-safe: push(), keep(), pass() and wake() may be called in any thread, the others in that
// of the loop.
class PostedQueue {
public:
  using Callbacks = RingBuffer<Callback<void()>>;
  // Callbacks that are not called, in the order in which they are to be destroyed.
  struct Left {
    Callbacks returned;
    Callbacks posted;
    WaitingCallbacks waiting;
  };

  // Fails: returns an errno.
  int open() noexcept;
  // Readable when there is something to do.
  int fd() const noexcept { return wake_.get(); }
  // Returns false, and leaves the callback, after close().
  // Fails: std::bad_alloc, and leaves the callback; so does post().
  bool push(Callback<void()>& callback);
  // See LoopAddress.  Returns false also after refuse().
  bool post(Callback<void()>& callback);
  std::optional<LoopAddress::Place> keep(std::unique_ptr<WaitingCallback>);
  void pass(LoopAddress::Place, Callback<void(WaitingCallback&)> value);
  void wake() noexcept;
  bool empty() const noexcept { return !has_posted_; }
  // Removes all callbacks, or those that were put back.
  Callbacks take() noexcept;
  // Puts back the ones that did not run: they are the next.
  void put_back(Callbacks&&) noexcept;
  // From now on post() and keep() take nothing.  Returns what is left.
  Left refuse();
  // The same, and push() takes nothing either.
  Left close();
  // The same in a process that the program has forked.  Returns false, and takes nothing, if a thread
  // held the lock at the fork: that thread does not exist here, and the queue may be half changed.
  bool close_inherited(Left&);

private:
  void add(Callback<void()>&);

  std::mutex lock_;
  Left left_;  // guarded by lock_
  std::atomic<bool> has_posted_{false};
  bool refuses_ = false;  // guarded by lock_
  bool closed_ = false;   // guarded by lock_
  OwnedFd wake_;
};

}  // namespace evparallel::detail
