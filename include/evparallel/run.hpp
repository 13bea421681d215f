// run.hpp - one child as a remote function, for any number of calls.
// Licence: see COPYING.  Manual: evparallel_run(3).
#pragma once

#include <evparallel/call.hpp>
#include <evparallel/options.hpp>
#include <evparallel/snapshot.hpp>
#include <evparallel/task.hpp>
#include <evparallel/with_state.hpp>

#include <memory>
#include <utility>

namespace evparallel {

namespace detail {

// A Remote, independent of its types.
class RemoteInterface {
public:
  // First of each call.  Fails: std::logic_error in another thread than that of its loop, as all
  // functions but abort().
  virtual DraftBuffer& drafts() = 0;
  // The message of a call that is being written.
  struct Message : Draft {
    explicit Message(RemoteInterface& core) : Draft(core.drafts()) {}
  };
  // The memory of a short `argument` stays with the caller.
  virtual Call call(Writer& argument, Answer&&, const CallOptions&) = 0;
  virtual Call refuse(const Error&, Answer) = 0;  // a call whose arguments could not be written
  virtual std::uint64_t next_id() const noexcept = 0;  // of the call that is made next
  virtual pid_t pid() const = 0;
  virtual std::size_t pending() const = 0;
  virtual void close() = 0;
  virtual void abort() noexcept = 0;  // its handle is gone.  Any thread
  virtual LoopRunner& loop_runner() noexcept = 0;

protected:
  ~RemoteInterface() = default;
};

EVPARALLEL_API std::shared_ptr<RemoteInterface> start_remote(Reactor&, const Task&, const Options&);

// A remote function: its type, its codecs, and the task of its child.
template <class F, class IncIo, class OutIo>
struct RemoteFunction {
  using S = Shape<F>;
  using signature = typename S::signature;
  using Type = CallType<signature, IncIo, OutIo>;

  static constexpr auto codecs() noexcept { return Type::codecs(); }
  static Task task(const F& f) {
    using Inc = typename S::Inc;
    using IncCodec = typename Type::IncCodec;
    using Args = typename Type::ArgumentsCodec;
    Task::Entry entry;
    if constexpr (is_coroutine<typename S::Result>)
      entry = &CoroutineEntry<typename S::Result>::template answer_calls<F, IncCodec, Args>;
    else if constexpr (S::replies_later)
      entry = &run_later_entry<F, Inc, IncCodec, Args>;
    else
      entry = &run_entry<F, Inc, IncCodec, Args>;
    return make_task(f, entry, takes_descriptors<Inc, IncCodec>, S::replies_later);
  }
};

}  // namespace detail

template <class Signature>
class Remote {
  static_assert(detail::always_false<Signature>,
                "evparallel: Remote names a function type: Remote<Inc(Args...)>");
};

// A remote function that takes Args and answers Inc.  Move-only: dropping it ends the child, and
// calls in progress fail with `cancelled`.  May outlive its Reactor and does nothing then.
//
// Calls may be made at any time, and any number at once; a synchronous task answers them in order,
// one after the other, in one child.  The callback of each call is called exactly once, from the
// loop, whichever process dies.  A child that has died is replaced at the next call.
template <class Inc, class... Args>
class Remote<Inc(Args...)> : public detail::CallHandle<detail::RemoteInterface, Inc, Args...> {
  using Handle = detail::CallHandle<detail::RemoteInterface, Inc, Args...>;
  static constexpr std::size_t count = sizeof...(Args);

public:
  Remote() noexcept = default;
  Remote(std::shared_ptr<detail::RemoteInterface> core, const typename Handle::Codecs& codecs)
      : Handle(std::move(core), codecs) {}

  // Calls the function; `callback(Result<Inc>)`, or `callback(Result<Inc>, Call)`, receives the
  // answer.  Values that are moved in are sent without a copy if their codecs can do that: all of
  // them, except numbers, or none.
  // Fails: std::logic_error after close().
  template <class F>
  Call operator()(detail::Kept<Args>... arguments, F&& callback) {
    return this->call(CallOptions{}, std::forward<F>(callback), std::as_const(arguments)...);
  }
  template <class F>
  Call operator()(const CallOptions& options, detail::Kept<Args>... arguments, F&& callback) {
    return this->call(options, std::forward<F>(callback), std::as_const(arguments)...);
  }
  template <class F, bool moved = detail::any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  Call operator()(detail::Moved<Args>... arguments, F&& callback) {
    return this->call(CallOptions{}, std::forward<F>(callback), std::move(arguments)...);
  }
  template <class F, bool moved = detail::any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  Call operator()(const CallOptions& options, detail::Moved<Args>... arguments, F&& callback) {
    return this->call(options, std::forward<F>(callback), std::move(arguments)...);
  }
  // Reports the mistake if the number of arguments is wrong.
  template <class... Given, std::enable_if_t<detail::is_wrong_number<count + 1, Given...>, int> = 0>
  Call operator()(const Given&...) {
    static_assert(!detail::is_wrong_number<count + 1, Given...>,
                  "evparallel: a remote function is called with its arguments, as many as it has, "
                  "and then the callback; CallOptions may be in front of them");
    return {};
  }

  pid_t pid() const { return this->core_ ? this->core_->pid() : 0; }  // 0 until known
};

// Makes f a remote function: f is Inc(Args...), or asynchronous: void(Args..., Reply<Inc>), or a
// coroutine: Task<Inc>(Args...).  Its child is forked now.  Codecs: of the answer, then of each of
// the arguments; Io if none is named.
// If f is in a library that was loaded after the snapshot was taken, each call fails with
// Error{unknown_function}.
// Fails: Error{no_snapshot}, Error{spawn_failed} (no descriptors); std::logic_error for a callable
// that cannot be sent.
template <class IncIo = DefaultIo, class OutIo = DefaultIo, class F>
[[nodiscard]] auto run(Reactor& reactor, F f, const Options& options = {}) {
  using R = detail::RemoteFunction<F, IncIo, OutIo>;
  return Remote<typename R::signature>(detail::start_remote(reactor, R::task(f), options),
                                       R::codecs());
}

// The same with codecs that are templates, run<RawIo>(...), or one of them.
template <template <class> class IncIo, template <class> class OutIo = Io, class F>
[[nodiscard]] auto run(Reactor& reactor, F f, const Options& options = {}) {
  return run<detail::TemplateIo<IncIo>, detail::TemplateIo<OutIo>>(reactor, std::move(f), options);
}
template <template <class> class IncIo, class OutIo, class F>
[[nodiscard]] auto run(Reactor& reactor, F f, const Options& options = {}) {
  return run<detail::TemplateIo<IncIo>, OutIo>(reactor, std::move(f), options);
}
template <class IncIo, template <class> class OutIo, class F>
[[nodiscard]] auto run(Reactor& reactor, F f, const Options& options = {}) {
  return run<IncIo, detail::TemplateIo<OutIo>>(reactor, std::move(f), options);
}

}  // namespace evparallel
