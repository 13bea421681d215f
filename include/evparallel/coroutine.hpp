// coroutine.hpp - coroutines of C++20: a call, a pause, or a pipe is awaited.
// Licence: see COPYING.  Manual: evparallel_coroutine(3).
//
// The library itself is C++17; this header needs C++20 (g++ -std=c++20), and nothing but headers.
// evparallel.hpp does not include it.
//
// A task runs where it is resumed: in start(), in wait(), and then in the loop.  A task that is
// cancelled gets Error{cancelled} at the co_await at which it is suspended, once; if it is dropped,
// it gets that, too, and is destroyed at its next co_await.
#pragma once

#include <evparallel/pool.hpp>
#include <evparallel/process.hpp>
#include <evparallel/run.hpp>

#if !defined __cpp_impl_coroutine && !defined __cpp_coroutines
#error "evparallel: coroutine.hpp needs a compiler with coroutines: -std=c++20"
#endif

#include <chrono>
#include <coroutine>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

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

  // A wait that nobody could cancel would break the promise that a cancelled task hears it.
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

// ---- calls ----

template <class Inc, class... Args, class F>
Call begin_call(Remote<Inc(Args...)>& f, const CallOptions& options, std::tuple<Args...>& arguments,
                F&& callback) {
  return std::apply(
      [&](Args&... argument) {
        return f(options, static_cast<Moved<Args>>(argument)..., std::forward<F>(callback));
      },
      arguments);
}
template <class Inc, class... Args, class F>
Call begin_call(Pool<Inc(Args...)>& f, const CallOptions& options, std::tuple<Args...>& arguments,
                F&& callback) {
  return std::apply(
      [&](Args&... argument) {
        return f.submit(options, static_cast<Moved<Args>>(argument)..., std::forward<F>(callback));
      },
      arguments);
}

enum class CallForm : bool { value, result };

template <CallForm form, class Callee, class Inc, class... Args>
class CallAwaiter final : public Awaiter {
public:
  CallAwaiter(Callee& callee, const CallOptions& options, Args&&... arguments)
      : callee_(&callee), options_(options), arguments_(std::move(arguments)...) {}
  CallAwaiter(CallAwaiter&&) = default;
  ~CallAwaiter() {
    if (suspended()) call_.cancel();
  }

  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    call_ =
        begin_call(*callee_, options_, arguments_, Wake<CallAwaiter, &CallAwaiter::answer>(*this));
    suspend(task.promise().run(), task);
  }
  auto await_resume() {
    if constexpr (form == CallForm::result)
      return std::move(*result_);
    else if constexpr (std::is_void_v<Inc>)
      result_->value();
    else
      return Inc(std::move(*result_).value());
  }

private:
  void answer(Result<Inc>&& result) {
    result_.emplace(std::move(result));
    resume();
  }
  void abandon() noexcept override {
    call_.cancel();
    result_.emplace(task_cancelled());
  }

  Callee* callee_;
  CallOptions options_;
  std::tuple<Args...> arguments_;
  Call call_{};
  std::optional<Result<Inc>> result_;
};

// Whether these are not the arguments of a call of `Callee`.
template <class Callee, class... Given>
constexpr bool is_wrong_call = false;
template <class Inc, class... Args, class... Given>
constexpr bool is_wrong_call<Remote<Inc(Args...)>, Given...> =
    is_wrong_number<sizeof...(Args), Given...>;
template <class Inc, class... Args, class... Given>
constexpr bool is_wrong_call<Pool<Inc(Args...)>, Given...> =
    is_wrong_number<sizeof...(Args), Given...>;

template <class Callee>
constexpr bool is_callee = false;
template <class Signature>
constexpr bool is_callee<Remote<Signature>> = true;
template <class Signature>
constexpr bool is_callee<Pool<Signature>> = true;

template <CallForm form, class Inc, class... Args, template <class> class Callee>
auto make_call(Callee<Inc(Args...)>& f, const CallOptions& options, Args... arguments) {
  return CallAwaiter<form, Callee<Inc(Args...)>, Inc, Args...>(f, options, std::move(arguments)...);
}

}  // namespace detail

// A call of f, a Remote or a Pool, which must live until it is awaited.  The arguments are converted
// and kept now; the call is made by co_await, which gives the answer.  If the task is cancelled or
// destroyed meanwhile, so is the call.
// Fails: at co_await the Error of the call; std::logic_error after close().
template <template <class> class Callee, class Inc, class... Args>
requires detail::is_callee<Callee<Inc(Args...)>> [[nodiscard]] auto call(
    Callee<Inc(Args...)>& f, std::type_identity_t<Args>... arguments) {
  return detail::make_call<detail::CallForm::value>(f, CallOptions{}, std::move(arguments)...);
}
template <template <class> class Callee, class Inc, class... Args>
requires detail::is_callee<Callee<Inc(Args...)>> [[nodiscard]] auto call(
    Callee<Inc(Args...)>& f, const CallOptions& options, std::type_identity_t<Args>... arguments) {
  return detail::make_call<detail::CallForm::value>(f, options, std::move(arguments)...);
}
// The same; co_await gives a Result.
template <template <class> class Callee, class Inc, class... Args>
requires detail::is_callee<Callee<Inc(Args...)>> [[nodiscard]] auto call_result(
    Callee<Inc(Args...)>& f, std::type_identity_t<Args>... arguments) {
  return detail::make_call<detail::CallForm::result>(f, CallOptions{}, std::move(arguments)...);
}
template <template <class> class Callee, class Inc, class... Args>
requires detail::is_callee<Callee<Inc(Args...)>> [[nodiscard]] auto call_result(
    Callee<Inc(Args...)>& f, const CallOptions& options, std::type_identity_t<Args>... arguments) {
  return detail::make_call<detail::CallForm::result>(f, options, std::move(arguments)...);
}
// Reports the mistake if the number of arguments is wrong.
template <class Callee, class... Given>
requires detail::is_wrong_call<Callee, Given...> void call(Callee&, const Given&...) {
  static_assert(detail::always_false<Callee>,
                "evparallel: call() takes a remote function or a pool and then its arguments, as "
                "many as it has; CallOptions may be in front of them");
}

// ---- a pause ----

namespace detail {

class SleepAwaiter final : public Awaiter {
public:
  SleepAwaiter(Reactor& loop, std::chrono::nanoseconds time) noexcept : loop_(&loop), time_(time) {}
  SleepAwaiter(SleepAwaiter&&) = default;

  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    timer_ = loop_->after(time_, Wake<SleepAwaiter, &SleepAwaiter::go_on>(*this));
    suspend(task.promise().run(), task);
  }
  void await_resume() const {
    if (cancelled_) throw task_cancelled();
  }

private:
  void go_on() { resume(); }
  void abandon() noexcept override {
    timer_.cancel();
    cancelled_ = true;
  }

  Reactor* loop_;
  std::chrono::nanoseconds time_;
  Timer timer_{};
  bool cancelled_ = false;
};

}  // namespace detail

// co_await waits for this time, and other tasks and callbacks run.
// Fails: as Reactor::after().
[[nodiscard]] inline auto sleep(Reactor& loop, std::chrono::nanoseconds time) noexcept {
  return detail::SleepAwaiter(loop, time);
}

// ---- several tasks ----

namespace detail {

// A Task, or the task that awaits one call.
template <class T>
evparallel::Task<T> task_of(evparallel::Task<T> task) {
  if (!task) throw_no_task();
  return task;
}
template <class Awaited>
requires std::is_base_of_v<Awaiter, Awaited> auto task_of(Awaited awaited)
    -> evparallel::Task<decltype(awaited.await_resume())> {
  co_return co_await std::move(awaited);
}
template <class Awaited>
using task_type_of = decltype(task_of(std::declval<Awaited>()));

// The value of a task, also of one without a value.
template <class T>
using regular_t = std::conditional_t<std::is_void_v<T>, std::monostate, T>;
template <class T>
regular_t<T> take_from(evparallel::Task<T>& task) {
  if constexpr (std::is_void_v<T>) {
    task.frame().promise().take();
    return {};
  } else {
    return task.frame().promise().take();
  }
}

// What when_all() and when_any() have in common: all tasks begin; the wait ends when the last one
// has ended, or the first one, or one that has failed.  Then the others are cancelled.
enum class GroupEnd : bool { with_the_last, with_the_first };

template <GroupEnd end, class Tasks>
class GroupAwaiter : public Awaiter {
public:
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  bool await_suspend(std::coroutine_handle<Promise> task) {
    beginning_ = true;
    for_each([&](auto& one) {
      if (one) ++left_;
    });
    over_ = left_ == 0;
    for_each([&](auto& one) {
      if (over_ || !one) return;
      auto& promise = one.frame().promise();
      promise.begin_run().begin(one.frame(), &on_done, this, &task.promise().run());
    });
    beginning_ = false;
    if (over_) {
      end_others();
      return false;
    }
    suspend(task.promise().run(), task);
    return true;
  }

protected:
  explicit GroupAwaiter(Tasks tasks) : tasks_(std::move(tasks)) {}
  GroupAwaiter(GroupAwaiter&&) = default;

  void check() const {
    if (failure_) std::rethrow_exception(failure_);
  }
  // The task that has ended the wait.
  template <class One>
  bool is_first(const One& one) const noexcept {
    return one && &one.frame().promise().run() == first_;
  }
  Tasks& tasks() noexcept { return tasks_; }

private:
  template <class F>
  void for_each(F&& f) {
    if constexpr (requires { tasks_.begin(); })
      for (auto& one : tasks_) f(one);
    else
      std::apply([&](auto&... one) { (f(one), ...); }, tasks_);
  }

  static void on_done(TaskRun& run, void* self) {
    static_cast<GroupAwaiter*>(self)->ended(run, run.failure());
  }
  void ended(const TaskRun& run, const std::exception_ptr& failure) {
    --left_;
    if (over_) return;
    over_ = end == GroupEnd::with_the_first || failure || left_ == 0;
    if (!over_) return;
    failure_ = failure;
    first_ = &run;
    if (beginning_) return;
    end_others();
    resume();
  }
  void abandon() noexcept override {
    over_ = true;
    failure_ = std::make_exception_ptr(task_cancelled());
    end_others();
  }
  void end_others() noexcept {
    for_each([](auto& one) {
      if (one && !one.frame().done()) one = {};
    });
  }

  Tasks tasks_;
  std::size_t left_ = 0;
  const TaskRun* first_ = nullptr;
  std::exception_ptr failure_{};
  bool beginning_ = false;
  bool over_ = false;
};

template <class Tasks>
class AllAwaiter;
template <class... T>
class AllAwaiter<std::tuple<evparallel::Task<T>...>> final
    : public GroupAwaiter<GroupEnd::with_the_last, std::tuple<evparallel::Task<T>...>> {
public:
  explicit AllAwaiter(std::tuple<evparallel::Task<T>...> tasks)
      : AllAwaiter::GroupAwaiter(std::move(tasks)) {}
  std::tuple<regular_t<T>...> await_resume() {
    this->check();
    // Braces: evaluated from left to right.
    return std::apply([](auto&... one) { return std::tuple<regular_t<T>...>{take_from(one)...}; },
                      this->tasks());
  }
};
template <class T>
class AllAwaiter<std::vector<evparallel::Task<T>>> final
    : public GroupAwaiter<GroupEnd::with_the_last, std::vector<evparallel::Task<T>>> {
public:
  explicit AllAwaiter(std::vector<evparallel::Task<T>> tasks)
      : AllAwaiter::GroupAwaiter(std::move(tasks)) {}
  std::vector<regular_t<T>> await_resume() {
    this->check();
    std::vector<regular_t<T>> values;
    values.reserve(this->tasks().size());
    for (auto& one : this->tasks()) values.push_back(take_from(one));
    return values;
  }
};

template <class Tasks>
class AnyAwaiter;
template <class... T>
class AnyAwaiter<std::tuple<evparallel::Task<T>...>> final
    : public GroupAwaiter<GroupEnd::with_the_first, std::tuple<evparallel::Task<T>...>> {
public:
  explicit AnyAwaiter(std::tuple<evparallel::Task<T>...> tasks)
      : AnyAwaiter::GroupAwaiter(std::move(tasks)) {}
  std::variant<regular_t<T>...> await_resume() {
    this->check();
    std::optional<std::variant<regular_t<T>...>> value;
    take_first(value, std::index_sequence_for<T...>{});
    return std::move(*value);
  }

private:
  template <std::size_t... i>
  void take_first(std::optional<std::variant<regular_t<T>...>>& value, std::index_sequence<i...>) {
    auto& tasks = this->tasks();
    ((this->is_first(std::get<i>(tasks))
          ? void(value.emplace(std::in_place_index<i>, take_from(std::get<i>(tasks))))
          : void()),
     ...);
  }
};
template <class T>
class AnyAwaiter<std::vector<evparallel::Task<T>>> final
    : public GroupAwaiter<GroupEnd::with_the_first, std::vector<evparallel::Task<T>>> {
public:
  explicit AnyAwaiter(std::vector<evparallel::Task<T>> tasks)
      : AnyAwaiter::GroupAwaiter(std::move(tasks)) {
    if (this->tasks().empty())
      throw std::logic_error("evparallel: when_any() was called without a task");
  }
  std::pair<std::size_t, regular_t<T>> await_resume() {
    this->check();
    std::size_t index = 0;
    while (!this->is_first(this->tasks()[index])) ++index;
    return {index, take_from(this->tasks()[index])};
  }
};

template <class Awaited>
auto tasks_of(std::vector<Awaited> many) {
  std::vector<task_type_of<Awaited>> tasks;
  tasks.reserve(many.size());
  for (Awaited& one : many) tasks.push_back(task_of(std::move(one)));
  return tasks;
}

}  // namespace detail

// Begins all tasks, in order; co_await gives the tuple of their values, std::monostate for void.  At
// the first error the others are cancelled, and it is thrown.  Instead of a task, a call, sleep() or
// another wait of this header may be given.
template <class First, class... Awaited>
[[nodiscard]] auto when_all(First first, Awaited... awaited) {
  return detail::AllAwaiter<
      std::tuple<detail::task_type_of<First>, detail::task_type_of<Awaited>...>>(
      {detail::task_of(std::move(first)), detail::task_of(std::move(awaited))...});
}
// The same for any number of one type: the vector of their values.
template <class Awaited>
[[nodiscard]] auto when_all(std::vector<Awaited> awaited) {
  return detail::AllAwaiter<std::vector<detail::task_type_of<Awaited>>>(
      detail::tasks_of(std::move(awaited)));
}

// Begins all tasks, in order, until one has ended; the others are cancelled.  co_await gives the
// variant with its value, whose index() is that of the task; if it has failed, its error is thrown.
template <class First, class... Awaited>
[[nodiscard]] auto when_any(First first, Awaited... awaited) {
  return detail::AnyAwaiter<
      std::tuple<detail::task_type_of<First>, detail::task_type_of<Awaited>...>>(
      {detail::task_of(std::move(first)), detail::task_of(std::move(awaited))...});
}
// The same for any number of one type: the pair of the index and the value.
// Fails: std::logic_error without a task.
template <class Awaited>
[[nodiscard]] auto when_any(std::vector<Awaited> awaited) {
  return detail::AnyAwaiter<std::vector<detail::task_type_of<Awaited>>>(
      detail::tasks_of(std::move(awaited)));
}

// ---- tasks without an awaiting one ----

namespace detail {

// Waits until the loop runs posted callbacks.
class PostAwaiter final : public Awaiter {
public:
  explicit PostAwaiter(Reactor& loop) noexcept : loop_(&loop) {}
  PostAwaiter(PostAwaiter&&) = default;
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    loop_->post(Wake<PostAwaiter, &PostAwaiter::go_on>(*this));
    suspend(task.promise().run(), task);
  }
  void await_resume() const noexcept {}

private:
  void go_on() { resume(); }
  void abandon() noexcept override {}

  Reactor* loop_;
};

template <class T>
evparallel::Task<T> fail_in_loop(Reactor& loop, std::exception_ptr failure) {
  co_await PostAwaiter(loop);
  std::rethrow_exception(failure);
}

}  // namespace detail

// The handle of a task that start() has begun.  Move-only; dropping it cancels the task and
// destroys it.  May outlive the Reactor: the task waits for ever then.
template <class T>
class [[nodiscard]] Running {
public:
  Running() noexcept = default;
  explicit Running(Task<T> task) noexcept : task_(std::move(task)) {}

  // The task gets Error{cancelled} at the co_await at which it is suspended, and runs on from there
  // before cancel() returns.  In the task itself: at its next co_await.
  void cancel() {
    if (task_) task_.frame().promise().run().cancel();
  }
  bool done() const noexcept { return task_ && task_.frame().done(); }
  // The answer, once.
  // Fails: the exception that has left the task; std::logic_error if it is not done.
  T take() {
    if (!done())
      throw std::logic_error(
          "evparallel: Running::take() was called before the task was done; done() says whether "
          "it is");
    Task<T> ended = std::move(task_);
    return ended.frame().promise().take();
  }
  // Releases the handle: the task goes on.  An exception that leaves it leaves the loop as that of
  // a callback.
  // Fails: the exception that has left the task, if it is done.
  void detach() {
    if (!task_) return;
    if (done()) return static_cast<void>(take());
    const auto frame = task_.release();
    frame.promise().run().set_ownerless(&end_detached, frame.address());
  }

private:
  static void end_detached(detail::TaskRun&, void* address) {
    const auto frame = Task<T>::Frame::from_address(address);
    const std::exception_ptr failure = frame.promise().failure();
    frame.destroy();
    if (failure) std::rethrow_exception(failure);
  }
  Task<T> task_{};
};

// Begins the task: it runs now until it waits, and then in the callbacks of `loop`.
// Fails: std::logic_error if the task was moved from.
template <class T>
[[nodiscard]] Running<T> start(Reactor& loop, Task<T> task) {
  if (!task) detail::throw_no_task();
  const auto begin = [](const Task<T>& one) {
    one.frame().promise().begin_run().begin(one.frame(), nullptr, nullptr);
  };
  begin(task);
  if (!task.frame().done() || !task.frame().promise().failure()) return Running<T>(std::move(task));
  // The exception is for the loop, if the handle is detached.
  Task<T> failed = detail::fail_in_loop<T>(loop, task.frame().promise().failure());
  begin(failed);
  return Running<T>(std::move(failed));
}

// Begins the task, and runs the loop until it has ended; other callbacks run meanwhile.  Returns its
// answer.
// Fails: the exception that leaves the task; std::logic_error if nothing is pending that could end
// it, and inside a callback of that loop; Error{cancelled} if Reactor::stop() ends the loop; an
// exception that has left another callback.  The task is cancelled then.
template <class Awaited>
auto wait(Reactor& loop, Awaited awaited) {
  detail::LoopRunner& runner = detail::runner_of(loop);
  runner.check_can_run();
  bool done = false;
  auto task = detail::task_of(std::move(awaited));
  task.frame().promise().begin_run().begin(
      task.frame(), [](detail::TaskRun&, void* flag) { *static_cast<bool*>(flag) = true; }, &done);
  if (!done && !runner.run_until(done)) {
    if (!runner.pending())
      throw std::logic_error(
          "evparallel: wait() has a task that never ends: nothing is pending in its loop");
    throw Error(Errc::cancelled, "cancelled: the loop was stopped before the task ended");
  }
  return task.frame().promise().take();
}

// ---- pipes and processes ----

namespace detail {

template <class In, class Out>
class NextAwaiter final : public Awaiter {
public:
  explicit NextAwaiter(const Pipe<In, Out>& pipe) : core_(pipe.core()), get_(pipe.codecs().get) {}
  NextAwaiter(NextAwaiter&&) = default;
  ~NextAwaiter() {
    if (suspended()) core_->stop_waiting_for_message();
  }

  bool await_ready() const noexcept { return core_->input_over(); }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    core_->wait_for_message(Wake<NextAwaiter, &NextAwaiter::end>(*this));
    suspend(task.promise().run(), task);
  }
  std::optional<In> await_resume() {
    if (error_) throw Error(*error_);
    return std::move(value_);
  }

private:
  void end(Reader* in, const Error* error) {
    if (error) error_.emplace(*error);
    if (in) try {
        value_.emplace(get_(*in));
      } catch (const Error& bad) {
        error_.emplace(bad);
      }
    resume();
  }
  void abandon() noexcept override {
    core_->stop_waiting_for_message();
    error_.emplace(task_cancelled());
  }

  std::shared_ptr<PipeInterface> core_;
  In (*get_)(Reader&);
  std::optional<In> value_{};
  std::optional<Error> error_{};
};

template <class In, class Out>
class SentAwaiter final : public Awaiter {
public:
  SentAwaiter(const Pipe<In, Out>& pipe, Out&& value) : pipe_(pipe), value_(std::move(value)) {}
  SentAwaiter(SentAwaiter&&) = default;

  bool await_ready() const noexcept { return false; }
  template <class Promise>
  bool await_suspend(std::coroutine_handle<Promise> task) {
    check_open();
    if (pipe_.send(std::move(value_))) return false;
    pipe_.core()->wait_for_room(Wake<SentAwaiter, &SentAwaiter::go_on>(*this));
    suspend(task.promise().run(), task);
    return true;
  }
  void await_resume() const {
    if (cancelled_) throw task_cancelled();
    check_open();
  }

private:
  void check_open() const {
    if (pipe_.closed())
      throw Error(Errc::closed, "closed: this direction of the pipe has ended before sent()");
  }
  void go_on() { resume(); }
  void abandon() noexcept override { cancelled_ = true; }

  Pipe<In, Out> pipe_;
  Out value_;
  bool cancelled_ = false;
};

class EndedAwaiter final : public Awaiter {
public:
  EndedAwaiter(std::shared_ptr<PipeInterface> pipe, std::shared_ptr<ProcessInterface> process)
      : pipe_(std::move(pipe)), process_(std::move(process)) {
    if (!process_)
      throw std::logic_error("evparallel: ended() was called for a Process that was detached");
  }
  EndedAwaiter(EndedAwaiter&&) = default;

  bool await_ready() const noexcept { return process_->exit_status() != nullptr; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> task) {
    process_->wait_for_exit(Wake<EndedAwaiter, &EndedAwaiter::go_on>(*this));
    suspend(task.promise().run(), task);
    pipe_->drop_unread();
  }
  ExitStatus await_resume() const {
    const ExitStatus* const status = process_->exit_status();
    if (cancelled_ || !status) throw task_cancelled();
    return *status;
  }

private:
  void go_on() { resume(); }
  void abandon() noexcept override { cancelled_ = true; }

  std::shared_ptr<PipeInterface> pipe_;
  std::shared_ptr<ProcessInterface> process_;
  bool cancelled_ = false;
};

}  // namespace detail

// co_await gives the next message, or nothing after the last one.  Between two of these the pipe
// reads nothing, and the end is not handled, so that this direction stays open until close().  Takes
// the place of on_message, on_end and on_error.
// Fails: Error for a message that could not be read, after which the pipe goes on, and for a broken
// end; std::logic_error if on_message is set, or another task waits for the same pipe.
template <class In, class Out>
[[nodiscard]] auto next(const Pipe<In, Out>& pipe) {
  return detail::NextAwaiter<In, Out>(pipe);
}

// Keeps the value now; co_await sends it, and waits while more than Options::high_water bytes wait.
// Fails: Error{closed} if this direction has ended; otherwise as Pipe::send().
template <class In, class Out>
[[nodiscard]] auto sent(const Pipe<In, Out>& pipe, std::type_identity_t<Out> value) {
  return detail::SentAwaiter<In, Out>(pipe, std::move(value));
}

// co_await gives the ExitStatus of the child when it has ended, also if it has ended before.
// Messages that nobody takes are dropped meanwhile.
// Fails: Error{cancelled} if the Process is dropped; std::logic_error after detach().
template <class Inc, class Out>
[[nodiscard]] auto ended(const Process<Inc, Out>& process) {
  return detail::EndedAwaiter(process.core(), process.process_core());
}

// ---- in the child ----

namespace detail {

// Passes the arguments themselves where fn() would pass its own parameters, which end earlier than
// the coroutine.
template <class F>
F& innermost_callable(F& f) noexcept {
  return f;
}
template <class Signature, class F>
F& innermost_callable(Fn<Signature, F>& f) noexcept {
  return f.f;
}

// A call of a child that a task answers.
class SuspendedCall {
public:
  SuspendedCall() noexcept = default;
  SuspendedCall(const SuspendedCall&) = delete;
  SuspendedCall& operator=(const SuspendedCall&) = delete;
  virtual ~SuspendedCall() = default;
};

// Those of one child, which end with it.
using SuspendedCalls = std::list<std::unique_ptr<SuspendedCall>>;

// It keeps the arguments, because parameters of the task may refer to them.
template <class Inc, class... Args>
class CallOfTask final : public SuspendedCall {
public:
  CallOfTask(Reply<Inc>&& reply, Args&&... arguments)
      : reply_(std::move(reply)), arguments_(std::move(arguments)...) {}

  template <class F>
  void begin(F& f, SuspendedCalls& all, SuspendedCalls::iterator place) {
    all_ = &all;
    place_ = place;
    task_ = std::apply(
        [&](Args&... argument) { return call_task(innermost_callable(f), std::move(argument)...); },
        arguments_);
    if (!task_) throw_no_task();
    task_.frame().promise().begin_run().begin(task_.frame(), &end, this);
  }

private:
  static void end(TaskRun&, void* address) {
    CallOfTask& self = *static_cast<CallOfTask*>(address);
    self.answer();
    self.all_->erase(self.place_);
  }
  void answer() {
    try {
      if constexpr (std::is_void_v<Inc>) {
        task_.frame().promise().take();
        reply_();
      } else {
        reply_(task_.frame().promise().take());
      }
    } catch (...) {
      reply_.fail(std::current_exception());
    }
  }

  Reply<Inc> reply_;
  std::tuple<Args...> arguments_;
  evparallel::Task<Inc> task_{};
  SuspendedCalls* all_ = nullptr;
  SuspendedCalls::iterator place_{};
};

template <class T>
struct CoroutineEntry<evparallel::Task<T>> {
  // The function of a child that answers each call when its task ends.
  template <class F, class IncCodec, class Args>
  static void answer_calls(ChildInterface& child, Reader& callable) {
    F task = CallableCodec<F>::deserialize(callable);
    auto&& f = begin_task(task);
    SuspendedCalls all;
    child.answer_later([&](Reader& in, std::shared_ptr<ReplyInterface> core) {
      Reply<T> reply = Reply<T>::template with<IncCodec>(std::move(core));
      Args::apply(in, [&](auto&&... argument) {
        using One = CallOfTask<T, std::decay_t<decltype(argument)>...>;
        auto one = std::make_unique<One>(std::move(reply), std::move(argument)...);
        One& begun = *one;
        const auto place = all.insert(all.end(), std::move(one));
        try {
          begun.begin(f, all, place);
        } catch (...) {
          all.erase(place);
          throw;
        }
      });
    });
  }

  // The function of a process, whose child ends with its task.
  template <class F, class InCodec, class OutCodec, class In, class Out>
  static void converse(ChildInterface& child, Reader& callable) {
    F f = CallableCodec<F>::deserialize(callable);
    const Pipe<In, Out> pipe(child.open_pipe(), pipe_codecs<In, Out, InCodec, OutCodec>);
    pipe.on_end([] {});  // the end of the parent's direction does not close this one
    bool over = false;
    evparallel::Task<void> task = call_task(innermost_callable(f), pipe);
    if (!task) throw_no_task();
    task.frame().promise().begin_run().begin(
        task.frame(), [](TaskRun&, void* done) { *static_cast<bool*>(done) = true; }, &over);
    child.converse_until(over);
    if (!over) return;
    const auto take = [&] { task.frame().promise().take(); };
    call_task(take);
    pipe.close();
  }
};

}  // namespace detail

}  // namespace evparallel
