// coroutine_task.hpp - a task, its run from one wait to the next, and what its waits have in common.
// Licence: see COPYING.  Manual: evparallel_coroutine(3).
#pragma once

#include <evparallel/run.hpp>

#include <coroutine>
#include <exception>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace evparallel {

namespace detail {

class Awaiter;

// The run of one task, which began without an awaiting task: by start(), by wait(), in a child, or
// as one of several tasks of when_all() or when_any().  It is in the frame of that task.
class TaskRun {
public:
  TaskRun() noexcept = default;
  TaskRun(const TaskRun&) = delete;
  TaskRun& operator=(const TaskRun&) = delete;

  // Called when the task has ended, from where it was resumed; may destroy the frame.
  using OnDone = void (*)(TaskRun&, void* owner);

  void begin(std::coroutine_handle<> frame, OnDone on_done, void* owner,
             TaskRun* parent = nullptr) {
    frame_ = frame;
    observe(on_done, owner);
    parent_ = parent;
    resume(frame);
  }
  void observe(OnDone on_done, void* owner) noexcept {
    on_done_ = on_done;
    owner_ = owner;
  }

  // Resumes the innermost task of this run.
  void resume(std::coroutine_handle<> innermost);
  void cancel();
  // Its owner is gone: cancels it and destroys its frame, as soon as it does not run.
  void drop() noexcept;
  // The loop is gone, and with it the callback that would resume the task: nobody else would
  // destroy a frame without an owner.
  void lose() noexcept;
  bool done() const noexcept { return frame_ && frame_.done(); }
  // The exception that has left the task.
  const std::exception_ptr& failure() const noexcept { return failure_; }
  // From now on the frame ends itself.
  void set_ownerless(OnDone on_done, void* owner) noexcept {
    observe(on_done, owner);
    ownerless_ = true;
  }

private:
  friend class Awaiter;
  friend class PromiseBase;
  void deliver_cancel() noexcept;
  std::exception_ptr failure_{};

  std::coroutine_handle<> frame_{};
  Awaiter* awaiter_ = nullptr;  // at which it is suspended
  TaskRun* parent_ = nullptr;
  OnDone on_done_ = nullptr;
  void* owner_ = nullptr;
  bool running_ = false;
  bool cancelled_ = false;  // while it ran, or before it began
  bool dropped_ = false;
  bool ownerless_ = false;
};

class AwaiterLink;

// What a task is suspended at.  It is in the frame of the task; until it is awaited it may be moved.
// The callback that ends the wait finds it through an AwaiterLink.
class Awaiter {
public:
  Awaiter(const Awaiter&) = delete;
  Awaiter& operator=(const Awaiter&) = delete;

protected:
  Awaiter() noexcept = default;
  Awaiter(Awaiter&&) noexcept {}
  virtual ~Awaiter();

  void suspend(TaskRun& run, std::coroutine_handle<> innermost) noexcept {
    run_ = &run;
    innermost_ = innermost;
    run.awaiter_ = this;
  }
  // Ends the wait; the last thing that its caller does: the awaiter is gone then.
  void resume() {
    TaskRun& run = *leave();
    run.resume(innermost_);
  }
  bool suspended() const noexcept { return run_ != nullptr; }

private:
  friend class TaskRun;
  friend class AwaiterLink;
  // Ends the operation; await_resume() is to report Error{cancelled}.
  virtual void abandon() noexcept = 0;
  TaskRun* leave() noexcept {
    TaskRun* const run = std::exchange(run_, nullptr);
    if (run) run->awaiter_ = nullptr;
    return run;
  }
  void unlink() noexcept;

  TaskRun* run_ = nullptr;
  std::coroutine_handle<> innermost_{};
  AwaiterLink* link_ = nullptr;
};

// In a callback: the awaiter that it resumes, unless that is gone.  If the callback is destroyed
// and was not called, its loop is gone.
class AwaiterLink {
public:
  explicit AwaiterLink(Awaiter& to) noexcept : to_(&to) {
    to.unlink();
    to.link_ = this;
  }
  AwaiterLink(AwaiterLink&& other) noexcept : to_(std::exchange(other.to_, nullptr)) {
    if (to_) to_->link_ = this;
  }
  AwaiterLink& operator=(AwaiterLink&&) = delete;
  ~AwaiterLink() {
    Awaiter* const to = release();
    if (to && to->run_) to->run_->lose();
  }
  Awaiter* release() noexcept {
    Awaiter* const to = std::exchange(to_, nullptr);
    if (to) to->link_ = nullptr;
    return to;
  }

private:
  friend class Awaiter;
  Awaiter* to_;
};

inline void Awaiter::unlink() noexcept {
  if (link_) std::exchange(link_, nullptr)->to_ = nullptr;
}

inline Awaiter::~Awaiter() {
  unlink();
  leave();
}

inline void TaskRun::resume(std::coroutine_handle<> innermost) {
  running_ = true;
  innermost.resume();
  running_ = false;
  if (dropped_) return drop();
  while (cancelled_ && awaiter_) deliver_cancel();
  if (dropped_) return drop();
  if (done() && on_done_) std::exchange(on_done_, nullptr)(*this, owner_);
}

inline void TaskRun::deliver_cancel() noexcept {
  cancelled_ = false;
  Awaiter& awaiter = *awaiter_;
  awaiter.unlink();
  awaiter.abandon();
  const std::coroutine_handle<> innermost = awaiter.innermost_;
  awaiter.leave();
  running_ = true;
  innermost.resume();
  running_ = false;
}

inline void TaskRun::cancel() {
  if (done()) return;
  cancelled_ = true;
  if (running_ || !awaiter_) return;
  while (cancelled_ && awaiter_) deliver_cancel();
  if (dropped_) return drop();
  if (done() && on_done_) std::exchange(on_done_, nullptr)(*this, owner_);
}

inline void TaskRun::drop() noexcept {
  on_done_ = nullptr;
  dropped_ = true;
  if (running_) return;
  if (awaiter_ && !done()) deliver_cancel();
  frame_.destroy();
}

inline void TaskRun::lose() noexcept {
  TaskRun* outermost = this;
  while (outermost->parent_) outermost = outermost->parent_;
  if (outermost->ownerless_ && !outermost->running_) outermost->frame_.destroy();
}

template <class T>
constexpr bool is_task = false;
template <class T>
constexpr bool is_task<evparallel::Task<T>> = true;

// What both kinds of promise have.
class PromiseBase {
public:
  std::suspend_always initial_suspend() const noexcept { return {}; }

  struct Final {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) const noexcept {
      const std::coroutine_handle<> next = ended.promise().awaiting_;
      return next ? next : std::noop_coroutine();
    }
    void await_resume() const noexcept {}
  };
  Final final_suspend() const noexcept { return {}; }
  void unhandled_exception() noexcept { own_run_.failure_ = std::current_exception(); }

  // If a wait could not be cancelled, a cancelled task would not get its error there.
  template <class T>
  T&& await_transform(T&& awaited) const noexcept {
    static_assert(std::is_base_of_v<Awaiter, std::decay_t<T>> || is_task<std::decay_t<T>>,
                  "evparallel: a Task can await another Task, and what call(), sleep(), when_all() "
                  "and the other functions of coroutine.hpp return");
    static_assert(!std::is_lvalue_reference_v<T>,
                  "evparallel: a task is awaited once: co_await std::move(task)");
    return static_cast<T&&>(awaited);
  }

  TaskRun& run() const noexcept { return *run_; }
  TaskRun& begin_run() noexcept {
    run_ = &own_run_;
    return own_run_;
  }
  bool has_own_run() const noexcept { return run_ == &own_run_; }
  // Begins this task for one that awaits it.  Returns false if it has ended at once.
  bool begin_for(TaskRun& run, std::coroutine_handle<> own, std::coroutine_handle<> awaiting) {
    run_ = &run;
    own.resume();
    if (own.done()) return false;
    awaiting_ = awaiting;
    return true;
  }
  // The exception that has left the task.
  const std::exception_ptr& failure() const noexcept { return own_run_.failure(); }

protected:
  void rethrow() {
    if (failure()) std::rethrow_exception(std::exchange(own_run_.failure_, nullptr));
  }

private:
  std::coroutine_handle<> awaiting_{};
  TaskRun* run_ = nullptr;
  TaskRun own_run_;
};

template <class T>
class Promise : public PromiseBase {
public:
  evparallel::Task<T> get_return_object() noexcept;
  template <class U = T>
  requires std::is_convertible_v<U&&, T> void return_value(U&& value) {
    value_.emplace(std::forward<U>(value));
  }
  T take() {
    rethrow();
    return std::move(*value_);
  }

private:
  std::optional<T> value_;
};

template <>
class Promise<void> : public PromiseBase {
public:
  evparallel::Task<void> get_return_object() noexcept;
  void return_void() const noexcept {}
  void take() { rethrow(); }
};

[[noreturn]] inline void throw_no_task() {
  throw std::logic_error("evparallel: this Task has no coroutine: it was moved from, or awaited");
}

}  // namespace detail

// A coroutine that answers T.  It begins when it is awaited or started, once.  Move-only; dropping
// it destroys the coroutine.
template <class T>
class [[nodiscard]] Task {
  static_assert(!std::is_reference_v<T>,
                "evparallel: the answer of a Task must not be a reference; return the value");

public:
  using promise_type = detail::Promise<T>;
  using value_type = T;
  using Frame = std::coroutine_handle<promise_type>;

  Task() noexcept = default;
  explicit Task(Frame frame) noexcept : frame_(frame) {}
  Task(Task&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      drop();
      frame_ = std::exchange(other.frame_, nullptr);
    }
    return *this;
  }
  ~Task() { drop(); }

  explicit operator bool() const noexcept { return frame_ != nullptr; }

  // Fails: std::logic_error if it was moved from.
  auto operator co_await() && {
    if (!frame_) detail::throw_no_task();
    return Awaited(std::exchange(frame_, nullptr));
  }

  // For the other parts of the library.
  Frame frame() const noexcept { return frame_; }
  Frame release() {
    if (!frame_) detail::throw_no_task();
    return std::exchange(frame_, nullptr);
  }

private:
  class Awaited {
  public:
    explicit Awaited(Frame frame) noexcept : frame_(frame) {}
    Awaited(const Awaited&) = delete;
    Awaited& operator=(const Awaited&) = delete;
    ~Awaited() { frame_.destroy(); }
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> awaiting) {
      return frame_.promise().begin_for(awaiting.promise().run(), frame_, awaiting);
    }
    T await_resume() { return frame_.promise().take(); }

  private:
    Frame frame_;
  };

  void drop() noexcept {
    if (!frame_) return;
    if (frame_.promise().has_own_run())
      frame_.promise().run().drop();
    else
      frame_.destroy();
    frame_ = nullptr;
  }

  Frame frame_{};
};

namespace detail {

template <class T>
evparallel::Task<T> Promise<T>::get_return_object() noexcept {
  return evparallel::Task<T>(std::coroutine_handle<Promise>::from_promise(*this));
}
inline evparallel::Task<void> Promise<void>::get_return_object() noexcept {
  return evparallel::Task<void>(std::coroutine_handle<Promise>::from_promise(*this));
}

inline Error task_cancelled() {
  return Error(Errc::cancelled, "cancelled: the task was cancelled while it waited");
}

// ---- callbacks ----

// `member` of the awaiter is called, unless it is gone.
template <class To, auto member>
class Wake {
public:
  explicit Wake(To& to) noexcept : link_(to) {}
  template <class... A>
  void operator()(A&&... arguments) {
    Awaiter* const to = link_.release();
    if (to) (static_cast<To*>(to)->*member)(std::forward<A>(arguments)...);
  }

private:
  AwaiterLink link_;
};

}  // namespace detail

}  // namespace evparallel
