// posted_queue.cpp - callbacks for later: deferred by the loop itself, and posted by other threads.
// Runs in: parent, child.  Licence: see COPYING.
#include "loop/event_loop.hpp"

#include <unistd.h>

#include <cstdint>
#include <iterator>

namespace evparallel::detail {

void Loop::defer(Callback<void()> callback) {
  deferred_.push_back(std::move(callback));
  if (deferred_.size() == 1) deferred_event_.activate();
}

void Loop::run_deferred() {
  // What is deferred meanwhile runs in the next round, so that this one ends.
  for (std::size_t left = deferred_.size(); left > 0 && !interrupted(); --left) {
    Callback<void()> callback = std::move(deferred_.front());
    deferred_.pop_front();
    call([&] { callback(); });
  }
  if (!deferred_.empty()) deferred_event_.activate();
}

void Loop::post(Callback<void()> callback) {
  check_at_home();
  const std::lock_guard<std::mutex> guard(posted_lock_);
  posted_.push_back(std::move(callback));
  has_posted_ = true;
  wake();
}

void Loop::wake() noexcept {
  const std::uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) return;  // full: the loop is awake already
}

void Loop::run_posted() {
  std::uint64_t count;
  if (::read(wake_.get(), &count, sizeof count) < 0 && !has_posted_) return;
  std::deque<Callback<void()>> posted;
  {
    const std::lock_guard<std::mutex> guard(posted_lock_);
    posted.swap(posted_);
    has_posted_ = false;
  }
  while (!posted.empty() && !interrupted()) {
    Callback<void()> callback = std::move(posted.front());
    posted.pop_front();
    call([&] { callback(); });
  }
  if (posted.empty()) return;
  // run() has to return first: the rest keeps its place for the next run().
  const std::lock_guard<std::mutex> guard(posted_lock_);
  posted_.insert(posted_.begin(), std::make_move_iterator(posted.begin()),
                 std::make_move_iterator(posted.end()));
  has_posted_ = true;
  wake();
}

void Loop::release_from_outside() noexcept {
  if (--outside_holds_ == 0) wake();
}

void Loop::leave_posted() noexcept {
  std::unique_lock<std::mutex> guard(posted_lock_, std::defer_lock);
  // A thread of the program may have held the lock at the fork, and does not exist in this process.
  if (!inherited_) {
    guard.lock();
  } else if (!guard.try_lock()) {
    new std::shared_ptr<Loop>(shared_from_this());  // leaked: the queue may be half changed
    return;
  }
  std::deque<Callback<void()>> posted;
  posted.swap(posted_);
  guard.unlock();
}

}  // namespace evparallel::detail
