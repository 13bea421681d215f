// coroutine_child.hpp - a coroutine as the function of a child.
// Licence: see COPYING.  Manual: evparallel_coroutine(3).
#pragma once

#include <evparallel/detail/coroutine_task.hpp>
#include <evparallel/process.hpp>

#include <list>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace evparallel {

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
