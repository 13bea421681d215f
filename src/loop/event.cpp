// event.cpp - one event of libevent, and the objects that a loop informs of its end.
// Runs in: parent, child.  Licence: see COPYING.
#include "loop/event_loop.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <new>
#include <system_error>

namespace evparallel::detail {

namespace {

timeval timeval_of(std::chrono::nanoseconds time) noexcept {
  // Rounded up: a timer is never early.
  auto us =
      std::chrono::ceil<std::chrono::microseconds>(std::max(time, std::chrono::nanoseconds::zero()))
          .count();
  // libevent adds the time of its clock, which must not wrap around.
  if constexpr (sizeof(time_t) <= 4)
    us = std::min(us, std::int64_t{std::numeric_limits<std::int32_t>::max() / 2} * 1000000);
  return {static_cast<time_t>(us / 1000000), static_cast<suseconds_t>(us % 1000000)};
}

std::chrono::steady_clock::time_point after_now(std::chrono::nanoseconds time) noexcept {
  using Time = std::chrono::steady_clock::time_point;
  const Time now = std::chrono::steady_clock::now();
  return time < Time::max() - now ? now + time : Time::max();
}

// libevent, or the kernel, has returned an error.
[[noreturn]] void refused(const char* what) {
  if (errno == ENOMEM) throw std::bad_alloc();
  throw std::system_error(errno, std::generic_category(), what);
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
  if (registered_with_->next_to_retry_ == this) registered_with_->next_to_retry_ = next_;
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
  forget_mirror();
  loop_ = &loop;
  persistent_ = (what & EV_PERSIST) != 0;
  ::event_assign(&event_, loop.base_, fd, what, call, &loop_);
}

// Only a loop with a mirror needs this.
template <class F>
void Event::undone_if_it_throws(F f) {
  try {
    f();
  } catch (...) {
    remove();
    throw;
  }
}

void Event::add() {
  if (added_) return;
  if (::event_add(&event_, nullptr) != 0)
    refused("evparallel: the event loop refused a descriptor");
  added_ = true;
  ++loop_->own_events_;
  if (loop_->mirror_) undone_if_it_throws([this] { mirror(); });
}

void Event::add_in(std::chrono::nanoseconds time) {
  // libevent counts from the time at which it woke up, so a timer that is set after long work would
  // be early.
  ::event_base_update_cache_time(loop_->base_);
  const timeval in = timeval_of(time);
  if (::event_add(&event_, &in) != 0) refused("evparallel: the event loop refused a timer");
  if (!added_) {
    added_ = true;
    ++loop_->own_events_;
  }
  if (loop_->mirror_) undone_if_it_throws([=] { mirror_timer(after_now(time)); });
}

// libevent's clock may be 4 ms behind when a timer is set, and then the timer is early, or comes before
// one that is due earlier.  The mirror decides which timers are due, and their order.
void Event::timed_out_by_libevent() noexcept {
  loop_->activate_due_timers();
  if (timer_ != 0) {  // not among them yet
    const timeval in = timeval_of(loop_->mirror_->due_time(*this) - Mirror::Clock::now());
    if (::event_add(&event_, &in) == 0) {
      added_ = true;
      ++loop_->own_events_;
    }
  }
  loop_->show_mirror();
}

void Event::activate() noexcept {
  ::event_active(&event_, EV_TIMEOUT, 0);
  if (loop_->mirror_) loop_->show_mirror();
}

void Event::remove() noexcept {
  if (!loop_ || !loop_->base_) return;
  if (loop_->inherited_ && !loop_->part()) return;
  ::event_del(&event_);
  if (loop_->mirror_) unmirror();
  if (!added_) return;
  added_ = false;
  --loop_->own_events_;
}

void Event::unset() noexcept {
  remove();
  loop_ = nullptr;
}

}  // namespace evparallel::detail
