// posted_queue.cpp - callbacks that other threads post to a loop.
// Runs in: parent, child.  Licence: see COPYING.
#include "loop/posted_queue.hpp"

#include "system/new_descriptor.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

namespace evparallel::detail {

int PostedQueue::open() noexcept {
  wake_ = OwnedFd(open_counter());
  return wake_ ? 0 : errno;
}

// Requires: the lock.
void PostedQueue::add(Callback<void()>& callback) {
  left_.posted.emplace_back() = std::move(callback);
  has_posted_ = true;
  wake();
}

bool PostedQueue::push(Callback<void()>& callback) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (closed_) return false;
  add(callback);
  return true;
}

bool PostedQueue::post(Callback<void()>& callback) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (refuses_) return false;
  add(callback);
  return true;
}

std::optional<LoopAddress::Place> PostedQueue::keep(std::unique_ptr<WaitingCallback> waiting) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (refuses_) return std::nullopt;
  return left_.waiting.insert(left_.waiting.end(), std::move(waiting));
}

void PostedQueue::pass(LoopAddress::Place place, Callback<void(WaitingCallback&)> value) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (refuses_) return;
  Callback<void()> call(
      [waiting = std::move(*place), value = std::move(value)]() mutable { value(*waiting); });
  left_.waiting.erase(place);
  add(call);
}

void PostedQueue::wake() noexcept {
  const std::uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) return;  // full: the loop is awake already
}

PostedQueue::Callbacks PostedQueue::take() noexcept {
  std::uint64_t count;
  if (::read(wake_.get(), &count, sizeof count) < 0 && empty()) return {};
  const std::lock_guard<std::mutex> guard(lock_);
  Callbacks& first = left_.returned.empty() ? left_.posted : left_.returned;
  Callbacks taken = std::move(first);
  has_posted_ = !left_.posted.empty();
  if (has_posted_) wake();
  return taken;
}

void PostedQueue::put_back(Callbacks&& callbacks) noexcept {
  const std::lock_guard<std::mutex> guard(lock_);
  left_.returned = std::move(callbacks);
  has_posted_ = true;
  wake();
}

PostedQueue::Left PostedQueue::refuse() {
  const std::lock_guard<std::mutex> guard(lock_);
  refuses_ = true;
  has_posted_ = false;
  return std::exchange(left_, {});
}

PostedQueue::Left PostedQueue::close() {
  const std::lock_guard<std::mutex> guard(lock_);
  refuses_ = closed_ = true;
  has_posted_ = false;
  return std::exchange(left_, {});
}

bool PostedQueue::close_inherited(Left& left) {
  const std::unique_lock<std::mutex> guard(lock_, std::try_to_lock);
  if (!guard) return false;
  refuses_ = closed_ = true;
  std::swap(left, left_);
  return true;
}

}  // namespace evparallel::detail
