// event_loop.hpp - one event of libevent, and the loop that it belongs to.  With watch.cpp the only file
// that includes
// libevent.
// Runs in: parent, child.  Licence: see COPYING.
//
// The C++ side of the edge: no exception passes through libevent, whatever a callback does.
//
// A process that the program forks by itself inherits loops that are not its own: the kernel's event
// queue and the sockets are the program's.  There a loop is not alive, calls nobody, and leaves that
// queue alone.
#pragma once

#include <evparallel/callback.hpp>
#include <evparallel/io.hpp>

#include "base/callback_slot.hpp"
#include "base/ring_buffer.hpp"
#include "system/descriptor.hpp"

#include <event2/event.h>
#include <event2/event_struct.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace evparallel {

class Loop;

// Something that hangs on a loop and must know when the loop is gone.
class LoopObserver {
public:
  LoopObserver() noexcept = default;
  LoopObserver(const LoopObserver&) = delete;
  LoopObserver& operator=(const LoopObserver&) = delete;

protected:
  virtual ~LoopObserver();
  void attach(Loop&) noexcept;
  void detach() noexcept;

private:
  friend class Loop;
  // The loop is being destroyed: remove all events, call nobody.  Already detached.
  virtual void on_loop_destroyed() noexcept = 0;

  Loop* attached_to_ = nullptr;
  LoopObserver* previous_ = nullptr;
  LoopObserver* next_ = nullptr;
};

// One `struct event`.  Its address must not change while it is armed.
class Event {
public:
  Event() noexcept = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { remove(); }

  // Names what is watched; `object->*member()` is called from the loop.
  template <auto member, class T>
  void set(Loop& loop, int fd, short what, T* object) noexcept;

  // Fails: std::system_error.
  void add();
  void add_in(std::chrono::nanoseconds);
  void activate() noexcept;
  void remove() noexcept;
  // Removes it and forgets the loop, which may not live on.
  void unset() noexcept;
  bool added() const noexcept { return added_; }

private:
  template <class T, auto member>
  static void trampoline(int, short, void* self) noexcept;
  void assign(Loop&, int fd, short what, void (*call)(int, short, void*)) noexcept;

  struct event event_ {};
  Loop* loop_ = nullptr;
  void* object_ = nullptr;
  bool persistent_ = false;
  bool added_ = false;
};

// A Reactor's inside.  It outlives the Reactor as long as a handle knows it; `base` is null then.
class Loop : public std::enable_shared_from_this<Loop> {
public:
  Loop(event_base*, bool owned);
  ~Loop();

  // Called by the Reactor.
  // Fails: std::logic_error in a process that has only inherited the loop.
  void check_at_home() const;
  bool at_home() const noexcept { return !inherited_; }
  void close() noexcept;
  // Closes it, once it is in none of its callbacks: a process that ends by exit() in one never comes
  // back there.
  void drop() noexcept;
  void run(const std::chrono::nanoseconds* limit);
  bool pending() const noexcept;
  void stop() noexcept;

  // One turn: waits for an event and runs what is ready.  For a child that waits for its own socket
  // as well.
  void turn();

  // Runs `f` as a callback: what it throws goes to run() or to on_exception.
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
  // A callback threw or asked to stop, or has forked and this is the copy: run() is to return before
  // the next one.
  bool interrupted() const noexcept { return thrown_ || stop_ || inherited_; }
  bool alive() const noexcept { return base_ != nullptr && !inherited_; }
  event_base* base() const noexcept { return base_; }

  // What keeps run() from returning.
  void hold() noexcept { ++holds_; }
  void release() noexcept { --holds_; }
  void hold_from_outside() noexcept { ++outside_holds_; }
  void release_from_outside() noexcept;

  // Runs it in this turn, after the callbacks that are ready, and not inside the caller.
  void defer(Callback<void()>);
  // Any thread.
  void post(Callback<void()>);
  void on_exception(Callback<void(std::exception_ptr)> callback) {
    on_exception_.set(std::move(callback));
  }

  // libevent has one signal pipe a process: the second loop that asks is refused.
  void watch_signals();
  void unwatch_signals() noexcept;

  // Received bytes, shared by all sockets of the loop: callbacks do not nest.
  static constexpr std::size_t scratch_size = 128 * 1024;
  char* scratch();

  // One for each loop, made at its first use: what those that hang on it have in common.
  template <class T>
  T& own() {
    static const char type = 0;
    for (const auto& [of, thing] : owned_things_)
      if (of == &type) return *static_cast<T*>(thing.get());
    owned_things_.emplace_back(&type, std::make_shared<T>());
    return *static_cast<T*>(owned_things_.back().second.get());
  }

  // The message that is written next, in memory that is used again.  nullptr: another one is being
  // written.
  Writer* begin_draft() noexcept {
    if (std::exchange(drafting_, true)) return nullptr;
    if (block_) take_block();
    return &draft_;
  }
  void end_draft() noexcept {
    drafting_ = false;
    draft_.clear();
    if (block_ || draft_.bytes().capacity() > most_kept) end_large_draft();
  }
  // Before a message is sent: where it is large, the next one may have its memory once it has left.
  // To fill pages that are new each time costs more than to copy.
  void lend(Writer& message) {
    if (message.written().size() >= large_message) lend_large(message);
  }

private:
  friend class LoopObserver;
  friend class Event;
  void caught() noexcept;
  void rethrow();
  void run_deferred();
  void run_posted();
  void wake() noexcept;
  void interrupt() noexcept;
  bool idle() const noexcept;
  bool ended_by_program() const noexcept;
  void lend_large(Writer&);
  void take_block() noexcept;
  void end_large_draft() noexcept;
  void leave_posted() noexcept;
  static void mark_all_inherited() noexcept;
  bool part() noexcept;
  void turn_again();

  event_base* base_;
  bool owned_;
  std::uint64_t number_limit_;  // when it was made
  bool inherited_ = false;      // by a process that the program has forked
  bool mute_ = false;           // inherited, or its Reactor is gone: it calls nobody
  bool parted_ = false;         // its base there has an event queue of its own
  Loop* next_ = nullptr;
  bool running_ = false;
  bool stop_ = false;
  int depth_ = 0;
  int own_events_ = 0;  // events of ours that libevent counts as added
  std::size_t holds_ = 0;
  std::atomic<std::size_t> outside_holds_{0};
  std::exception_ptr thrown_;
  CallbackSlot<void(std::exception_ptr)> on_exception_;
  LoopObserver* attached_ = nullptr;
  std::unique_ptr<char[]> scratch_;
  static constexpr std::size_t most_kept = 4096;
  static constexpr std::size_t large_message = std::size_t{256} << 10;
  Writer draft_;
  bool drafting_ = false;
  // By the address of a type.
  std::vector<std::pair<const char*, std::shared_ptr<void>>> owned_things_;
  std::shared_ptr<std::string> block_;  // of a large message, perhaps still under way
  int drafts_with_block_ = 0;           // so many more keep it
  RingBuffer<Callback<void()>> deferred_;
  Event deferred_event_;
  std::mutex posted_lock_;
  std::deque<Callback<void()>> posted_;  // guarded by posted_lock_
  std::atomic<bool> has_posted_{false};
  OwnedFd wake_;
  Event wake_event_;
};

// How many reactors live in this process.
int living_loops() noexcept;

template <auto member, class T>
void Event::set(Loop& loop, int fd, short what, T* object) noexcept {
  object_ = object;
  assign(loop, fd, what, &trampoline<T, member>);
}

template <class T, auto member>
void Event::trampoline(int, short, void* self) noexcept {
  Event& event = *static_cast<Event*>(self);
  T* object = static_cast<T*>(event.object_);
  Loop& loop = *event.loop_;
  if (loop.mute_) return event.remove();
  if (!event.persistent_ && event.added_) {
    event.added_ = false;
    --loop.own_events_;
  }
  loop.call([object] { (object->*member)(); });
}

}  // namespace evparallel
