// mirror.hpp - one descriptor that shows another loop whether this one has something to do.
// Runs in: parent, child.  Licence: see COPYING.
//
// The descriptor of libevent's own queue does not serve: it is quiet when a timer is due and when
// an event was made active.  So the mirror repeats the descriptors and the timers of the loop.
#pragma once

#include "system/descriptor.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace evparallel::detail {

class Event;

class Mirror {
public:
  using Clock = std::chrono::steady_clock;

  // Fails: std::system_error.
  Mirror();
  Mirror(const Mirror&) = delete;
  Mirror& operator=(const Mirror&) = delete;
  ~Mirror();

  int fd() const noexcept { return list_.get(); }

  // One more event that watches this descriptor, and one less.  Several may watch the same one.
  // add() fails: std::system_error; nothing is changed then.
  void add(int fd, bool reads, bool writes);
  void remove(int fd, bool reads, bool writes) noexcept;
  // A descriptor of libevent itself, which stays until the end; the second time nothing happens.
  void add_internal(int fd);

  // Sets or moves the timer of the event.
  void set_timer(Event&, Clock::time_point due);
  void remove_timer(Event&) noexcept;
  // Requires: the event has a timer.
  Clock::time_point due_time(const Event&) const noexcept;
  // Removes the earliest timer and returns its event, if it is due.
  Event* take_due(Clock::time_point now) noexcept;
  // The time until the earliest timer, 0 if it is due.
  std::optional<std::chrono::nanoseconds> until_timer() const noexcept;

  // Brings the descriptor up to date with the timers; `ready`: there is something to do at once.
  // Only show() and add(), remove() change the descriptor.
  void show(bool ready) noexcept;

private:
  struct Watchers {
    std::uint32_t readers = 0;
    std::uint32_t writers = 0;
  };
  struct Timer {
    Clock::time_point due;
    std::uint64_t serial;  // equal times are due in the order in which they were set
    Event* event;
  };

  int change(int fd, std::uint32_t before, std::uint32_t after) noexcept;
  static bool earlier(const Timer&, const Timer&) noexcept;
  void place(std::size_t at, const Timer&) noexcept;
  void sift(std::size_t at, const Timer&) noexcept;

  OwnedFd list_;
  OwnedFd bell_;   // readable while there is something to do at once
  OwnedFd clock_;  // readable when the earliest timer is due
  bool rung_ = false;
  Clock::time_point armed_ = Clock::time_point::max();  // of clock_; max: it is not armed
  std::vector<Watchers> watched_;                       // by descriptor
  std::vector<int> internal_;
  std::vector<Timer> timers_;  // a binary heap; Event::timer_ is the place in it, from 1 on
  std::uint64_t serial_ = 0;
};

}  // namespace evparallel::detail
