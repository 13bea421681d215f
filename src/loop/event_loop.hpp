// event_loop.hpp - one event of libevent, and the loop that it belongs to.
// Runs in: parent, child.  Licence: see COPYING.
//
// The only file that includes libevent.  No exception passes through libevent,
// whatever a callback does.
//
// A process that the program forks by itself inherits loops that it does not own: the kernel's
// event queue and the sockets belong to the program.  There a loop is not alive, makes no
// callbacks, and leaves that queue alone.
#pragma once

#include <evparallel/callback.hpp>
#include <evparallel/reactor.hpp>

#include "base/callback_slot.hpp"
#include "base/ring_buffer.hpp"
#include "system/this_thread.hpp"
#include "loop/draft_memory.hpp"
#include "loop/extensions.hpp"
#include "loop/mirror.hpp"
#include "loop/posted_queue.hpp"

#include <event2/event.h>
#include <event2/event_struct.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace evparallel::detail {

class Loop;

// An object that uses a loop and must know when the loop is destroyed.
class LoopObserver {
public:
  LoopObserver() noexcept = default;
  LoopObserver(const LoopObserver&) = delete;
  LoopObserver& operator=(const LoopObserver&) = delete;

protected:
  virtual ~LoopObserver();
  void register_with(Loop&) noexcept;
  void unregister() noexcept;

private:
  friend class Loop;
  // The loop is being destroyed: remove all events, make no callbacks.  The object is already
  // unregistered.
  virtual void on_loop_destroyed() noexcept = 0;
  // There was no memory for something that this object, or another one, has deferred: do what is due.
  // Called without need, too.
  virtual void retry() {}

  Loop* registered_with_ = nullptr;
  LoopObserver* previous_ = nullptr;
  LoopObserver* next_ = nullptr;
};

// One `struct event`.  Its address must not change while it is added.
class Event {
public:
  Event() noexcept = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { remove(); }

  // Sets what is watched; `object->*member()` is called from the loop.
  template <auto member, class T>
  void set(Loop& loop, int fd, short what, T* object) noexcept;

  // Fail: std::bad_alloc if libevent or the kernel has no memory; std::system_error.
  void add();
  // Only without a descriptor or signal.
  void add_in(std::chrono::nanoseconds);
  void activate() noexcept;
  void remove() noexcept;
  // Removes it and forgets the loop, which may be destroyed before this object.
  void unset() noexcept;
  bool added() const noexcept { return added_; }

private:
  friend class Loop;
  friend class Mirror;
  template <class T, auto member>
  static void trampoline(int, short, void* address_of_loop) noexcept;
  template <class T, auto member>
  [[gnu::noinline, gnu::cold]] static void unmirror_and_call(Event&) noexcept;
  // libevent gets the address of `loop_`, by which an event of the library is known among those that
  // the program has added.  nullptr: it is one of the program.
  static Event* owner_of(const struct event&) noexcept;
  void assign(Loop&, int fd, short what, void (*call)(int, short, void*)) noexcept;

  // Only if the loop has a mirror.
  template <class F>
  void undone_if_it_throws(F);
  void mirror();
  void mirror_timer(std::chrono::steady_clock::time_point due);
  void unmirror() noexcept;
  void forget_mirror() noexcept;
  void time_out() noexcept;
  void call_for_input() noexcept;
  void timed_out_by_libevent() noexcept;

  struct event event_ {};
  Loop* loop_ = nullptr;
  void* object_ = nullptr;
  bool persistent_ = false;
  bool added_ = false;
  bool mirrored_ = false;    // its descriptor
  std::uint32_t timer_ = 0;  // its place among the timers of the mirror; 0: none
};

// The implementation of a Reactor.  It outlives the Reactor while a handle refers to it; then
// `base` is null.
class Loop final : public LoopRunner, public std::enable_shared_from_this<Loop> {
public:
  Loop(event_base*, bool owned);
  ~Loop();

  // Called by the Reactor.
  // Fails: std::logic_error in a process that has only inherited the loop.
  void check_at_home() const;
  bool at_home() const noexcept { return !inherited_; }

  // ---- threads ----
  // The first use of the loop binds it to the calling thread.
  // Fails: std::logic_error in another thread.
  void check_thread() {
    if (!in_its_thread()) bind_to_thread();
  }
  bool in_its_thread() const noexcept {
    const void* const thread = thread_.load(std::memory_order_relaxed);
    return thread == this_thread() || thread == &any_thread;
  }
  // From now on each thread counts as that of the loop.  Fails: std::logic_error in another thread.
  void bind_to_no_thread();
  // Any thread: calls `f` in the thread of the loop, at once if this is that thread.  Once the loop
  // is closed it calls `f` at once in any thread, one at a time.  If the loop is closed before it
  // has called `f`, then `f` is destroyed without a call.
  template <class F>
  void call_in_its_thread(F f) noexcept {
    if (in_its_thread() && !is_closed())
      f();
    else
      call_elsewhere(std::move(f));
  }
  // From the end of close() on.  Any thread.
  bool is_closed() const noexcept { return closed_.load(std::memory_order_acquire); }

  void close() noexcept;
  // Closes it once none of its callbacks is running: a process that calls exit() in a callback
  // never returns to the loop.
  void close_when_idle() noexcept;
  void run(const std::chrono::nanoseconds* limit);
  void check_can_run() override;
  bool run_until(const bool& done) override;
  bool pending() const noexcept override;
  // Any thread.
  void stop() noexcept;

  // For a program whose main loop is another one.  The first fd() makes the mirror.
  // Fail: std::logic_error on a borrowed base; fd() also std::system_error.
  int fd();
  std::optional<std::chrono::nanoseconds> until_next();
  void poll();

  // The descriptor of this event, which a spurious call does not hurt, has had input: in another loop
  // the next turn may try it first.
  void expect_input(Event& event) noexcept {
    if (mirror_) expected_ = &event;
  }

  // One iteration: waits for an event, unless it may not, and runs what is ready.  For a child that
  // waits for its own socket as well.
  void turn(bool may_wait = true);

  // Runs `f` as a callback: an exception goes to run() or to on_exception.
  template <class F>
  void call(F&& f) noexcept {
    ++depth_;
    try {
      f();
    } catch (...) {
      caught();
    }
    --depth_;
  }
  bool in_callback() const noexcept { return depth_ > 0; }
  // A callback of any loop of this thread is running.
  static bool any_in_callback();
  // A callback has thrown or asked to stop, or has forked and this is the forked copy: run() has to
  // return before the next callback.
  bool interrupted() const noexcept { return thrown_ || stop_ || inherited_; }
  bool alive() const noexcept { return base_ != nullptr && !inherited_; }
  event_base* base() const noexcept { return base_; }

  // Keeps run() from returning.
  void hold() noexcept { ++holds_; }
  void release() noexcept { --holds_; }
  void hold_from_outside() noexcept { ++outside_holds_; }
  void release_from_outside() noexcept;

  // Calls it in this iteration, after the callbacks that are ready, and not inside the caller.
  // Fails: std::bad_alloc; not for the next `count` callbacks of up to 48 bytes after a
  // reserve_deferred(count).
  void defer(Callback<void()>);
  void reserve_deferred(std::size_t count) { deferred_.reserve(count); }
  // The same; without memory retry() of all observers is called instead, soon.
  template <class F>
  void defer_or_retry(const LoopObserver&, F f) noexcept {
    static_assert(sizeof(F) <= 48, "a callback of this size allocates memory");
    try {
      defer(std::move(f));
    } catch (const std::bad_alloc&) {
      retry_later();
    }
  }
  // The same; without memory it is called at once.
  void defer_or_call(Callback<void()>) noexcept;
  // Calls LoopObserver::retry() of all observers, soon.
  void retry_later() noexcept;
  // Any thread.
  void post(Callback<void()>) override;
  PostedQueue& posted() noexcept { return posted_; }
  void refuse_posts() noexcept;
  std::weak_ptr<LoopRunner> weak() noexcept override { return weak_from_this(); }
  void on_exception(Callback<void(std::exception_ptr)> callback) {
    on_exception_.set(std::move(callback));
  }

  // libevent has one signal pipe for a process: a second loop that asks is refused.
  void watch_signals(Event&);
  void unwatch_signals(Event&) noexcept;

  // The buffer for received bytes, shared by all sockets of the loop: callbacks do not nest.
  static constexpr std::size_t scratch_size = 128 * 1024;
  char* scratch();

  // One object of each type for each loop, made at its first use: state shared by the objects on
  // the loop.
  template <class T>
  T& extension() {
    return extensions_.get<T>();
  }
  DraftMemory& drafts() noexcept { return drafts_; }

private:
  friend class LoopObserver;
  struct Running;
  struct MirroredTurn;
  friend class Event;
  void caught() noexcept;
  void rethrow();
  void run_turns(const std::chrono::nanoseconds* limit);
  void run_deferred();
  void retry_all();
  void run_posted();
  void interrupt() noexcept;
  void bind_to_thread();
  [[noreturn]] void refuse_thread() const;
  void take_over_thread() noexcept;
  void call_elsewhere(Callback<void()>) noexcept;
  void join_loops();
  void leave_loops() noexcept;
  void free_base() noexcept;
  bool idle() const noexcept;
  bool ended_by_program() const noexcept;
  void clear_posted() noexcept;
  static void mark_all_inherited() noexcept;
  bool part() noexcept;
  void refused_to_turn() const;
  bool base_is_running() const noexcept;
  void check_own_base();
  void start_mirror();
  void mirror_internal_events();
  bool ready_at_once() const noexcept;
  void show_mirror() noexcept;
  void activate_due_timers() noexcept;
  void begin_mirrored_turn() noexcept;
  void end_mirrored_turn() noexcept;
  std::optional<std::chrono::nanoseconds> until_next_of_base() const;
  bool has_only_input() const noexcept;  // besides it, nothing is known to be due
  bool take_expected_input();

  event_base* base_;
  bool owned_;
  std::uint64_t number_limit_;  // when the loop was made
  bool inherited_ = false;      // by a process that the program has forked
  bool mute_ = false;           // inherited, or its Reactor is gone: no callbacks
  bool parted_ = false;         // its base has an event queue of its own there
  Loop* next_ = nullptr;        // of all loops of this process
  Loop* next_on_base_;          // of those on the same base, in a ring; they are of one thread
  static const char any_thread;
  // this_thread() of the thread that uses it; null: none; the address of any_thread: any
  std::atomic<const void*> thread_{nullptr};
  pid_t thread_number_ = 0;  // guarded by the ProcessLock
  std::atomic<bool> stop_posted_{false};
  std::atomic<bool> closed_{false};
  bool running_ = false;
  bool stop_ = false;
  bool in_turn_ = false;  // of a loop with a mirror, which is brought up to date at its end
  int depth_ = 0;
  int own_events_ = 0;  // the library's events that libevent counts as added
  std::size_t holds_ = 0;
  std::atomic<std::size_t> outside_holds_{0};
  // Null before fd() is called, and in a process that has inherited the loop: there the descriptors
  // of the mirror belong to the program, as libevent's queue does.
  Mirror* mirror_ = nullptr;
  std::unique_ptr<Mirror> kept_mirror_;
  Event* expected_ = nullptr;  // only with a mirror
  unsigned tries_left_ = 0;    // before a turn that asks the kernel
  unsigned untried_left_ = 0;  // turns before the next try
  std::exception_ptr thrown_;
  std::shared_ptr<Loop> closing_;  // set until close() is called, soon
  CallbackSlot<void(std::exception_ptr)> on_exception_;
  LoopObserver* attached_ = nullptr;
  LoopObserver* next_to_retry_ = nullptr;
  bool retries_ = false;  // retry_all() is due
  std::unique_ptr<char[]> scratch_;
  DraftMemory drafts_;
  Extensions extensions_;
  RingBuffer<Callback<void()>> deferred_;
  Event deferred_event_;
  Event retry_event_;
  PostedQueue posted_;
  Event posted_event_;
};

// The number of reactors in this process.  Any thread.
int living_loops() noexcept;

// Creates an object of a loop whose last reference may be dropped in any thread: it is destroyed in
// the thread of the loop.
template <class T, class... Args>
std::shared_ptr<T> make_on(const std::shared_ptr<Loop>& loop, Args&&... args) {
  const auto destroy = [loop](T* object) noexcept {
    loop->call_in_its_thread([owned = std::unique_ptr<T>(object)]() mutable { owned.reset(); });
  };
  return std::shared_ptr<T>(new T(std::forward<Args>(args)...), destroy);
}

template <auto member, class T>
void Event::set(Loop& loop, int fd, short what, T* object) noexcept {
  object_ = object;
  assign(loop, fd, what, &trampoline<T, member>);
}

// A function of its own, so that the trampoline needs no more registers than without a mirror.
template <class T, auto member>
void Event::unmirror_and_call(Event& event) noexcept {
  T* object = static_cast<T*>(event.object_);
  Loop& loop = *event.loop_;
  if (event.timer_ != 0) return event.timed_out_by_libevent();
  event.unmirror();
  loop.call([object] { (object->*member)(); });
}

template <class T, auto member>
void Event::trampoline(int, short, void* address_of_loop) noexcept {
  static_assert(std::is_standard_layout_v<Event>);
  Event& event =
      *reinterpret_cast<Event*>(static_cast<char*>(address_of_loop) - offsetof(Event, loop_));
  T* object = static_cast<T*>(event.object_);
  Loop& loop = *event.loop_;
  if (loop.mute_) return event.remove();
  if (!event.persistent_ && event.added_) {
    event.added_ = false;
    --loop.own_events_;
    if (loop.mirror_) return unmirror_and_call<T, member>(event);
  }
  loop.call([object] { (object->*member)(); });
}

}  // namespace evparallel::detail
