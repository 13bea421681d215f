// coroutine_group.hpp - waits for several tasks, or for the first of them.
// Licence: see COPYING.  Manual: evparallel_coroutine(3).
#pragma once

#include <evparallel/detail/coroutine_task.hpp>

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

}  // namespace evparallel
