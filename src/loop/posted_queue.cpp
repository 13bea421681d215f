// posted_queue.cpp - callbacks that other threads post to a loop.
// Runs in: parent, child.  Licence: see COPYING.
#include "loop/posted_queue.hpp"

#include "system/new_descriptor.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <iterator>
#include <utility>

namespace evparallel::detail {

int PostedQueue::open() noexcept {
  wake_ = OwnedFd(open_counter());
  return wake_ ? 0 : errno;
}

bool PostedQueue::push(Callback<void()>& callback) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (closed_) return false;
  posted_.push_back(std::move(callback));
  has_posted_ = true;
  wake();
  return true;
}

void PostedQueue::wake() noexcept {
  const std::uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) return;  // full: the loop is awake already
}

PostedQueue::Callbacks PostedQueue::take() {
  std::uint64_t count;
  if (::read(wake_.get(), &count, sizeof count) < 0 && empty()) return {};
  const std::lock_guard<std::mutex> guard(lock_);
  has_posted_ = false;
  return std::exchange(posted_, {});
}

PostedQueue::Callbacks PostedQueue::close() {
  const std::lock_guard<std::mutex> guard(lock_);
  closed_ = true;
  has_posted_ = false;
  return std::exchange(posted_, {});
}

void PostedQueue::put_back(Callbacks&& callbacks) {
  const std::lock_guard<std::mutex> guard(lock_);
  posted_.insert(posted_.begin(), std::make_move_iterator(callbacks.begin()),
                 std::make_move_iterator(callbacks.end()));
  has_posted_ = true;
  wake();
}

bool PostedQueue::take_inherited(Callbacks& callbacks) {
  const std::unique_lock<std::mutex> guard(lock_, std::try_to_lock);
  if (!guard) return false;
  closed_ = true;
  callbacks.swap(posted_);
  return true;
}

}  // namespace evparallel::detail
