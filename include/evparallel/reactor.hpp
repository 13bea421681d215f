// reactor.hpp - the event loop: timers, watches of descriptors and signals, posted work.
// Licence: see COPYING.  Manual: evparallel_reactor(3).
//
// A reactor belongs to one thread of one process: its first use binds it to the thread that uses it
// (run, poll, fd, a timer, a watch, or a handle that is made on it; neither post() nor hold()).  In
// another thread its functions and those of its handles throw std::logic_error, except post(),
// hold() and stop(); a handle that is dropped there ends in the thread of its reactor.  Any number
// of threads may have a reactor each: evparallel_threads(7).
// A snapshot must be taken before the first Reactor is made.  Callbacks run from the loop only; a
// callback may destroy or replace itself and its own handle, but not the Reactor.  An exception
// that leaves a callback ends run(), which throws it.
//
// In a process that the program itself has forked, an inherited Reactor and its handles do nothing,
// and may be destroyed; functions that need the loop throw std::logic_error.
#pragma once

#include <evparallel/callback.hpp>
#include <evparallel/detail/export.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

struct event_base;

namespace evparallel {

namespace detail {

class Loop;
class LoopHandle;

// A timer or a watch of a loop.
class EventSource {
public:
  virtual void cancel() noexcept = 0;
  virtual void detach_handle() noexcept = 0;  // from now on it keeps itself alive
  virtual bool active() const = 0;

protected:
  ~EventSource() = default;
};

// What the templates of calls ask of a loop.
class LoopRunner {
public:
  // Fails: std::logic_error inside a callback, where the loop cannot run, and in a thread that is not
  // that of the loop.
  virtual void check_can_run() = 0;
  // Runs the loop until `done` or until it is stopped; returns `done`.
  // Fails: as Reactor::run().
  virtual bool run_until(const bool& done) = 0;
  virtual bool pending() const noexcept = 0;  // work is left that keeps the loop running
  // Any thread: as Reactor::post(); after the end of the Reactor it does nothing.
  virtual void post(Callback<void()>) = 0;
  // For other threads, which do not know when the loop ends.
  virtual std::weak_ptr<LoopRunner> weak() noexcept = 0;

protected:
  ~LoopRunner() = default;
};

// The handle of one; it cancels what it holds.
class EventHandle {
public:
  EventHandle() noexcept = default;
  explicit EventHandle(std::shared_ptr<EventSource> source) noexcept : source_(std::move(source)) {}
  EventHandle(EventHandle&&) noexcept = default;
  EventHandle& operator=(EventHandle&& other) noexcept {
    if (this != &other) {
      cancel();
      source_ = std::move(other.source_);
    }
    return *this;
  }
  ~EventHandle() { cancel(); }

  void cancel() noexcept {
    if (source_) source_->cancel();
    source_.reset();
  }
  // Releases the handle: the source goes on without one.
  void detach() noexcept {
    if (source_) source_->detach_handle();
    source_.reset();
  }
  bool active() const { return source_ && source_->active(); }  // will fire (again)

private:
  friend class LoopHandle;
  std::shared_ptr<EventSource> source_{};
};

}  // namespace detail

// A timer.  Dropping it cancels it; detach() lets it run without a handle.
// May outlive its Reactor and does nothing then.
class Timer : public detail::EventHandle {
  using EventHandle::EventHandle;
};

namespace detail {

// The callback of a timer: void(), or void(Timer&), which gets a handle of its timer.  If a callable
// fits both, it is called without an argument.
class TimerCallback {
public:
  TimerCallback(std::nullptr_t) noexcept {}

  template <class F, class D = std::decay_t<F>,
            class = std::enable_if_t<!std::is_same_v<D, TimerCallback>>>
  TimerCallback(F&& callback) {
    constexpr bool is_plain = std::is_invocable_v<D&>;
    constexpr bool takes_handle = std::is_invocable_v<D&, Timer&>;
    static_assert(is_plain || takes_handle,
                  "evparallel: the callback of a timer must be void() or void(Timer&)");
    if constexpr (is_plain)
      plain = std::forward<F>(callback);
    else if constexpr (takes_handle)
      with_handle = std::forward<F>(callback);
  }

  Callback<void()> plain;
  Callback<void(Timer&)> with_handle;
};

}  // namespace detail

// A watch on a descriptor or signal; it fires until it is dropped.  The caller still owns the
// descriptor, which must be open while the watch exists.
class Watch : public detail::EventHandle {
  using EventHandle::EventHandle;
};

// Keeps run() from returning while it lives: for a thread that will post.  May be dropped in any
// thread.
class EVPARALLEL_API Hold {
public:
  Hold() noexcept = default;
  Hold(Hold&&) noexcept = default;
  Hold& operator=(Hold&&) noexcept;
  ~Hold();
  void release() noexcept;

private:
  friend class Reactor;
  explicit Hold(std::shared_ptr<detail::Loop>) noexcept;
  std::shared_ptr<detail::Loop> loop_;
};

class EVPARALLEL_API Reactor {
public:
  using duration = std::chrono::nanoseconds;

  Reactor();                      // an event_base of its own.  Fails: std::system_error
  explicit Reactor(event_base*);  // uses one that outlives the Reactor; several may share one base
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;
  // Closes everything that still uses it, and calls no callbacks.  Not inside run(), and not while
  // its thread uses it.
  ~Reactor();

  // Runs callbacks until nothing is pending: no timer, no watch, no open Process, no unanswered
  // call, no Hold; on a borrowed base also none of another Reactor, and no event of the program.
  // Idle remote functions and snapshots do not count; their events are handled in one turn that
  // does not wait, if nothing else is pending.  event_base_loopbreak() and event_base_loopexit()
  // end it, too.
  // Fails: std::logic_error inside a callback of this reactor or of its base; otherwise an
  // exception that has left a callback.
  void run();
  // The same for at most `limit`; 0: one turn, which does not wait.  Returns true if work is left.
  bool run_for(duration limit);
  // Any thread: makes run() return after the current callback.  Outside run() it does nothing; to
  // end a run() that another thread may not have begun, post a callback that calls it.
  void stop() noexcept;

  // In another loop: it watches fd(), and calls poll() when fd() is readable.  The three need a
  // Reactor with a base of its own, since the program's events on a borrowed base are not seen.
  // Fail: std::logic_error on a borrowed base.

  // One descriptor, readable while poll() has something to do; the same until the end of the
  // Reactor, which closes it.  The program does not read it.  The first call opens three descriptors,
  // and from then on changes of watches and timers cost system calls.
  // Fails: std::system_error.
  int fd();
  // The time until poll() has something to do: 0 if it has now, nullopt without a timer; a
  // descriptor, a signal or a post may come earlier.  Linear in the number of watches and timers
  // before the first fd().
  std::optional<duration> until_next() const;
  // One turn, which does not wait, as run_for(0) makes it.
  // Fails: as run().
  void poll();

  // For a program whose threads take turns in using it, as the threads of a strand do: from now on it
  // belongs to no thread, and the program makes sure that never two use it, or a handle of it, at the
  // same time.
  // Fails: std::logic_error in another thread than the one that has used it.
  void bind_to_no_thread();

  // Never fires early, even if the callback that sets it has taken long.  The callback is void(), or
  // void(Timer&): a handle of its own, whose end cancels nothing.
  [[nodiscard]] Timer after(duration, detail::TimerCallback);
  [[nodiscard]] Timer every(duration, detail::TimerCallback);

  // A descriptor that never has to be waited for, such as a regular file, is always ready.
  // Fails: std::system_error if the descriptor is not open.
  [[nodiscard]] Watch on_readable(int fd, Callback<void()>);
  [[nodiscard]] Watch on_writable(int fd, Callback<void()>);
  // Fails: std::logic_error if another Reactor of this process watches signals.
  [[nodiscard]] Watch on_signal(int signum, Callback<void()>);

  // Any thread: calls the callback from the loop, soon, in the order of the posts.
  void post(Callback<void()>);
  [[nodiscard]] Hold hold();

  // For a borrowed base that the program itself dispatches: called with an exception that leaves a
  // callback.  Without it, or if it throws, such an exception ends the program, because it cannot
  // pass through libevent.
  void on_exception(Callback<void(std::exception_ptr)>);

  event_base* base() const noexcept;

  // For the other parts of the library.
  const std::shared_ptr<detail::Loop>& loop() const noexcept { return loop_; }

private:
  std::shared_ptr<detail::Loop> loop_;
};

namespace detail {

EVPARALLEL_API LoopRunner& runner_of(Reactor&) noexcept;

}  // namespace detail

// The reactor of a child, made at the first use.  Fails: std::logic_error in the parent.
EVPARALLEL_API Reactor& this_reactor();

}  // namespace evparallel
