// event.cpp - one event of libevent, and the objects that a loop informs of its end.
// Runs in: parent, child.  Licence: see COPYING.
#include "loop/event_loop.hpp"

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace evparallel::detail {

namespace {

timeval timeval_of(std::chrono::nanoseconds time) noexcept {
  // Rounded up: a timer is never early.
  const auto us =
      std::chrono::ceil<std::chrono::microseconds>(std::max(time, std::chrono::nanoseconds::zero()))
          .count();
  return {static_cast<time_t>(us / 1000000), static_cast<suseconds_t>(us % 1000000)};
}

}  // namespace

// ---- LoopObserver ----

LoopObserver::~LoopObserver() {
  unregister();
}

void LoopObserver::register_with(Loop& loop) noexcept {
  unregister();
  registered_with_ = &loop;
  next_ = loop.attached_;
  if (next_) next_->previous_ = this;
  loop.attached_ = this;
}

void LoopObserver::unregister() noexcept {
  if (!registered_with_) return;
  if (previous_)
    previous_->next_ = next_;
  else
    registered_with_->attached_ = next_;
  if (next_) next_->previous_ = previous_;
  registered_with_ = nullptr;
  previous_ = nullptr;
  next_ = nullptr;
}

// ---- Event ----

void Event::assign(Loop& loop, int fd, short what, void (*call)(int, short, void*)) noexcept {
  remove();
  loop_ = &loop;
  persistent_ = (what & EV_PERSIST) != 0;
  ::event_assign(&event_, loop.base_, fd, what, call, this);
}

void Event::add() {
  if (added_) return;
  if (::event_add(&event_, nullptr) != 0)
    throw std::system_error(errno, std::generic_category(),
                            "evparallel: the event loop refused a descriptor");
  added_ = true;
  ++loop_->own_events_;
}

void Event::add_in(std::chrono::nanoseconds time) {
  // libevent counts from the time at which it woke up, so a timer that is set after long work would
  // be early.
  ::event_base_update_cache_time(loop_->base_);
  const timeval in = timeval_of(time);
  if (::event_add(&event_, &in) != 0)
    throw std::system_error(errno, std::generic_category(),
                            "evparallel: the event loop refused a timer");
  if (added_) return;
  added_ = true;
  ++loop_->own_events_;
}

void Event::activate() noexcept {
  ::event_active(&event_, EV_TIMEOUT, 0);
}

void Event::remove() noexcept {
  if (!loop_ || !loop_->base_) return;
  if (loop_->inherited_ && !loop_->part()) return;
  ::event_del(&event_);
  if (!added_) return;
  added_ = false;
  --loop_->own_events_;
}

void Event::unset() noexcept {
  remove();
  loop_ = nullptr;
}

}  // namespace evparallel::detail
