// posted_queue.hpp - callbacks that other threads post to a loop.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include "system/descriptor.hpp"

#include <evparallel/callback.hpp>

#include <atomic>
#include <deque>
#include <mutex>

namespace evparallel::detail {

// Thread-safe: push() and wake() may be called in any thread, the others in that of the loop.
class PostedQueue {
public:
  using Callbacks = std::deque<Callback<void()>>;

  // Fails: returns an errno.
  int open() noexcept;
  // Readable when there is something to do.
  int fd() const noexcept { return wake_.get(); }
  // False, and nothing is taken: it is closed.
  bool push(Callback<void()>&);
  void wake() noexcept;
  bool empty() const noexcept { return !has_posted_; }
  // Removes all callbacks.
  Callbacks take();
  // Puts back the ones that did not run: they are the next.
  void put_back(Callbacks&&);
  // The same as take(), and push() takes nothing from now on.
  Callbacks close();
  // The same in a process that the program has forked.  Returns false, and takes nothing,
  // if a thread held the lock at the fork: that thread does not exist here, and the queue may be
  // half changed.
  bool take_inherited(Callbacks&);

private:
  std::mutex lock_;
  Callbacks posted_;     // guarded by lock_
  bool closed_ = false;  // guarded by lock_
  std::atomic<bool> has_posted_{false};
  OwnedFd wake_;
};

}  // namespace evparallel::detail
