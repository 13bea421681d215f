// mirror.cpp - the descriptor that another loop watches, and the timers behind it.
// Runs in: parent, child.  Licence: see COPYING.
#include "loop/mirror.hpp"

#include "system/new_descriptor.hpp"
#include "loop/event_loop.hpp"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <system_error>
#include <utility>

namespace evparallel::detail {

namespace {

[[noreturn]] void refuse(int error) {
  throw std::system_error(error, std::generic_category(),
                          "evparallel: Reactor::fd cannot show a descriptor");
}

OwnedFd opened(int fd) {
  if (fd < 0) refuse(errno);
  return OwnedFd(fd);
}

std::uint32_t events_of(bool reads, bool writes) noexcept {
  return (reads ? std::uint32_t{EPOLLIN} : 0) | (writes ? std::uint32_t{EPOLLOUT} : 0);
}

}  // namespace

Mirror::Mirror()
    : list_(opened(open_watch_list())),
      bell_(opened(open_counter())),
      clock_(opened(open_timer())) {
  add_internal(bell_.get());
  add_internal(clock_.get());
}

Mirror::~Mirror() = default;

// ---- descriptors ----

void Mirror::add(int fd, bool reads, bool writes) {
  const auto index = static_cast<std::size_t>(fd);
  if (watched_.size() <= index) watched_.resize(index + 1);
  Watchers& now = watched_[index];
  Watchers next = now;
  if (reads) ++next.readers;
  if (writes) ++next.writers;
  if (const int error = change(fd, events_of(now.readers > 0, now.writers > 0),
                               events_of(next.readers > 0, next.writers > 0)))
    refuse(error);
  now = next;
}

void Mirror::remove(int fd, bool reads, bool writes) noexcept {
  Watchers& now = watched_[static_cast<std::size_t>(fd)];
  const std::uint32_t before = events_of(now.readers > 0, now.writers > 0);
  if (reads) --now.readers;
  if (writes) --now.writers;
  // It fails if the program has closed the descriptor: then the kernel has removed it already.
  change(fd, before, events_of(now.readers > 0, now.writers > 0));
}

void Mirror::add_internal(int fd) {
  if (std::find(internal_.begin(), internal_.end(), fd) != internal_.end()) return;
  internal_.reserve(internal_.size() + 1);
  add(fd, true, false);
  internal_.push_back(fd);
}

// Returns an errno.
int Mirror::change(int fd, std::uint32_t before, std::uint32_t after) noexcept {
  if (before == after) return 0;
  epoll_event wanted{};
  wanted.events = after;
  wanted.data.fd = fd;
  int how = after == 0 ? EPOLL_CTL_DEL : before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (::epoll_ctl(list_.get(), how, fd, &wanted) == 0) return 0;
  // The program has closed a descriptor that was watched, and its number is in use again.
  if (how == EPOLL_CTL_MOD && errno == ENOENT)
    how = EPOLL_CTL_ADD;
  else if (how == EPOLL_CTL_ADD && errno == EEXIST)
    how = EPOLL_CTL_MOD;
  else
    return errno;
  return ::epoll_ctl(list_.get(), how, fd, &wanted) == 0 ? 0 : errno;
}

// ---- timers ----

bool Mirror::earlier(const Timer& a, const Timer& b) noexcept {
  return a.due != b.due ? a.due < b.due : a.serial < b.serial;
}

void Mirror::place(std::size_t at, const Timer& timer) noexcept {
  timers_[at] = timer;
  timer.event->timer_ = static_cast<std::uint32_t>(at + 1);
}

// The place `at` is free: moves the timers above or below it, until `timer` fits.
void Mirror::sift(std::size_t at, const Timer& timer) noexcept {
  for (; at > 0; at = (at - 1) / 2) {
    const Timer above = timers_[(at - 1) / 2];
    if (!earlier(timer, above)) break;
    place(at, above);
  }
  for (;;) {
    std::size_t below = 2 * at + 1;
    if (below >= timers_.size()) break;
    if (below + 1 < timers_.size() && earlier(timers_[below + 1], timers_[below])) ++below;
    const Timer next = timers_[below];
    if (!earlier(next, timer)) break;
    place(at, next);
    at = below;
  }
  place(at, timer);
}

void Mirror::set_timer(Event& event, Clock::time_point due) {
  const Timer timer{due, ++serial_, &event};
  if (event.timer_ == 0) {
    timers_.push_back(timer);
    event.timer_ = static_cast<std::uint32_t>(timers_.size());
  }
  sift(event.timer_ - 1, timer);
}

void Mirror::remove_timer(Event& event) noexcept {
  if (event.timer_ == 0) return;
  const std::size_t at = std::exchange(event.timer_, 0) - 1;
  const Timer last = timers_.back();
  timers_.pop_back();
  if (at < timers_.size()) sift(at, last);
}

Mirror::Clock::time_point Mirror::due_time(const Event& event) const noexcept {
  return timers_[event.timer_ - 1].due;
}

Event* Mirror::take_due(Clock::time_point now) noexcept {
  if (timers_.empty() || timers_.front().due > now) return nullptr;
  Event* const due = timers_.front().event;
  remove_timer(*due);
  return due;
}

std::optional<std::chrono::nanoseconds> Mirror::until_timer() const noexcept {
  if (timers_.empty()) return std::nullopt;
  return std::max(timers_.front().due - Clock::now(), std::chrono::nanoseconds::zero());
}

// ---- what the other loop sees ----

void Mirror::show(bool ready) noexcept {
  const auto until = until_timer();
  // A due timer rings, because the kernel may take a moment until a clock is readable.
  if (until && until->count() == 0) ready = true;
  if (ready != rung_) {
    rung_ = ready;
    std::uint64_t one = 1;
    const auto done =
        ready ? ::write(bell_.get(), &one, sizeof one) : ::read(bell_.get(), &one, sizeof one);
    static_cast<void>(done);  // neither can block: only this function uses the counter
  }
  const auto due = timers_.empty() ? Clock::time_point::max() : timers_.front().due;
  if (ready || due == armed_) return;
  armed_ = due;
  itimerspec at{};
  if (due != Clock::time_point::max()) {
    const std::int64_t time = due.time_since_epoch().count();
    constexpr std::int64_t most = std::numeric_limits<time_t>::max();
    at.it_value = {static_cast<time_t>(std::min(time / 1000000000, most)),
                   static_cast<long>(time % 1000000000)};
  }
  ::timerfd_settime(clock_.get(), TFD_TIMER_ABSTIME, &at, nullptr);
}

}  // namespace evparallel::detail
