// other_loop.cpp - a Reactor inside of another loop: fd(), until_next() and poll().
// Runs in: parent, child.  Licence: see COPYING.
#include "system/fork.hpp"
#include "system/polling.hpp"
#include "loop/event_loop.hpp"
#include "loop/mirror.hpp"

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace evparallel::detail {

namespace {

using Clock = std::chrono::steady_clock;

// Calls `f` with each event of the base.  An exception does not pass through libevent.
template <class F>
void for_each_event(event_base* base, F f) {
  struct Visit {
    F& f;
    std::exception_ptr thrown{};
  } visit{f};
  ::event_base_foreach_event(
      base,
      [](const event_base*, const struct event* event, void* argument) {
        auto& now = *static_cast<Visit*>(argument);
        try {
          now.f(*event);
          return 0;
        } catch (...) {
          now.thrown = std::current_exception();
          return 1;
        }
      },
      &visit);
  if (visit.thrown) std::rethrow_exception(visit.thrown);
}

// libevent counts with the clock of steady_clock, at a coarser resolution.
Clock::time_point due_time(const struct event& event) noexcept {
  constexpr std::chrono::seconds most =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::nanoseconds::max());
  const std::chrono::seconds seconds(event.ev_timeout.tv_sec);
  if (seconds >= most) return Clock::time_point::max();
  return Clock::time_point(seconds + std::chrono::microseconds(event.ev_timeout.tv_usec));
}

bool has_timer(const struct event& event) noexcept {
  return ::event_pending(&event, EV_TIMEOUT, nullptr) != 0;
}

}  // namespace

// ---- Event ----

Event* Event::owner_of(const struct event& event) noexcept {
  const char* const owner = reinterpret_cast<const char*>(&event) - offsetof(Event, event_);
  if (::event_get_callback_arg(&event) != owner + offsetof(Event, loop_)) return nullptr;
  return const_cast<Event*>(reinterpret_cast<const Event*>(owner));
}

void Event::mirror() {
  const short what = ::event_get_events(&event_);
  if ((what & EV_SIGNAL) != 0) return loop_->mirror_internal_events();
  if ((what & (EV_READ | EV_WRITE)) == 0) return;
  loop_->mirror_->add(event_get_fd(&event_), (what & EV_READ) != 0, (what & EV_WRITE) != 0);
  mirrored_ = true;
}

void Event::mirror_timer(Clock::time_point due) {
  loop_->mirror_->set_timer(*this, due);
  loop_->show_mirror();
}

void Event::unmirror() noexcept {
  if (loop_->expected_ == this) loop_->expected_ = nullptr;
  loop_->mirror_->remove_timer(*this);
  if (std::exchange(mirrored_, false)) {
    const short what = ::event_get_events(&event_);
    loop_->mirror_->remove(event_get_fd(&event_), (what & EV_READ) != 0, (what & EV_WRITE) != 0);
  }
  loop_->show_mirror();
}

void Event::forget_mirror() noexcept {
  timer_ = 0;
  mirrored_ = false;
}

// The mirror's timers are more exact than those of libevent, whose clock may be 4 ms behind.
void Event::time_out() noexcept {
  ::event_del(&event_);
  if (std::exchange(added_, false)) --loop_->own_events_;
  ::event_active(&event_, EV_TIMEOUT, 0);
}

void Event::call_for_input() noexcept {
  const event_callback_fn call = ::event_get_callback(&event_);
  call(event_get_fd(&event_), EV_READ, &loop_);
}

// ---- Loop ----

void Loop::check_own_base() {
  check_thread();
  check_at_home();
  if (!owned_)
    throw std::logic_error(
        "evparallel: Reactor::fd, until_next and poll need a Reactor with a base of its own, "
        "because they do not see the program's events on a borrowed base; dispatch that base, or "
        "call Reactor::run_for");
}

int Loop::fd() {
  check_own_base();
  if (!mirror_) start_mirror();
  return mirror_->fd();
}

void Loop::start_mirror() {
  std::vector<Event*> events;
  for_each_event(base_, [&](const struct event& event) {
    Event* const own = Event::owner_of(event);
    if (own && own->loop_ == this) events.push_back(own);
  });
  kept_mirror_ = std::make_unique<Mirror>();
  mirror_ = kept_mirror_.get();
  try {
    for (Event* const event : events) {
      event->mirror();
      if (has_timer(event->event_)) mirror_->set_timer(*event, due_time(event->event_));
    }
  } catch (...) {
    for (Event* const event : events) event->forget_mirror();
    mirror_ = nullptr;
    kept_mirror_.reset();
    throw;
  }
  show_mirror();
}

// libevent reads signals from a descriptor of its own.
void Loop::mirror_internal_events() {
  for_each_event(base_, [this](const struct event& event) {
    if ((event.ev_evcallback.evcb_flags & EVLIST_INTERNAL) == 0) return;
    if (const int fd = event_get_fd(&event); fd >= 0) mirror_->add_internal(fd);
  });
}

bool Loop::ready_at_once() const noexcept {
  return thrown_ || ::event_base_get_num_events(base_, EVENT_BASE_COUNT_ACTIVE) > 0;
}

bool Loop::has_only_input() const noexcept {
  if (role() == Role::child || ready_at_once() || !posted_.empty()) return false;
  const auto timer = mirror_->until_timer();
  return !timer || timer->count() > 0;
}

void Loop::show_mirror() noexcept {
  if (!in_turn_) mirror_->show(ready_at_once());
}

void Loop::begin_mirrored_turn() noexcept {
  in_turn_ = true;
  activate_due_timers();
}

void Loop::activate_due_timers() noexcept {
  const auto now = Clock::now();
  while (Event* const due = mirror_->take_due(now)) due->time_out();
}

void Loop::end_mirrored_turn() noexcept {
  in_turn_ = false;
  show_mirror();
}

std::optional<std::chrono::nanoseconds> Loop::until_next() {
  constexpr auto at_once = std::chrono::nanoseconds::zero();
  check_own_base();
  if (ready_at_once() || !posted_.empty()) return at_once;
  if (!mirror_) return until_next_of_base();
  pollfd all{mirror_->fd(), POLLIN, 0};
  if (wait_for(&all, 1, 0) > 0) return at_once;
  return mirror_->until_timer();
}

std::optional<std::chrono::nanoseconds> Loop::until_next_of_base() const {
  std::vector<pollfd> descriptors;
  std::optional<Clock::time_point> first;
  for_each_event(base_, [&](const struct event& event) {
    if (has_timer(event))
      first = std::min(first.value_or(Clock::time_point::max()), due_time(event));
    const short what = ::event_get_events(&event);
    if ((what & EV_SIGNAL) != 0 || (what & (EV_READ | EV_WRITE)) == 0) return;
    descriptors.push_back({event_get_fd(&event),
                           static_cast<short>(((what & EV_READ) != 0 ? POLLIN : 0) |
                                              ((what & EV_WRITE) != 0 ? POLLOUT : 0)),
                           0});
  });
  wait_for(descriptors.data(), descriptors.size(), 0);
  // A descriptor that was closed never becomes ready for the loop.
  const bool ready = std::any_of(descriptors.begin(), descriptors.end(),
                                 [](const pollfd& one) { return (one.revents & ~POLLNVAL) != 0; });
  if (ready) return std::chrono::nanoseconds::zero();
  if (!first) return std::nullopt;
  return std::max<std::chrono::nanoseconds>(*first - Clock::now(),
                                            std::chrono::nanoseconds::zero());
}

void Loop::poll() {
  check_own_base();
  if (running_ || depth_ > 0)
    throw std::logic_error(
        "evparallel: Reactor::poll was called inside a callback of the same reactor");
  if (take_expected_input()) return;
  constexpr auto without_waiting = std::chrono::nanoseconds::zero();
  run(&without_waiting);
}

}  // namespace evparallel::detail
