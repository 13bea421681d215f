// call.hpp - one call of a remote function or of a pool: its options, its handle, its callback.
// Licence: see COPYING.  Manual: evparallel_run(3).
#pragma once

#include <evparallel/detail/arguments.hpp>
#include <evparallel/detail/draft.hpp>
#include <evparallel/reactor.hpp>
#include <evparallel/result.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

namespace evparallel {

// An aggregate: what one call needs, as its first argument: f(options, arguments..., callback).
struct CallOptions {
  // From the call to its answer.  0: none.  Unset: Options::deadline.
  std::optional<std::chrono::milliseconds> deadline{};
  // Of the waiting calls of a pool, the one with the highest priority goes first.  A remote
  // function makes its calls in order.
  int priority = 0;
  // As Options::retries, for this call.  Unset: Options::retries.
  std::optional<unsigned> retries{};
};

namespace detail {

// Called with the bytes of the answer of a call, or with an error.
using Answer = Callback<void(Reader*, const Error*)>;

// The object that a Call refers to.
class CallTarget {
public:
  virtual void cancel(std::uint64_t id) = 0;
  virtual void set_deadline(std::uint64_t id, std::chrono::nanoseconds) = 0;

protected:
  ~CallTarget() = default;
};

// Fails: std::logic_error for a negative time.
EVPARALLEL_API void check_call_deadline(std::chrono::nanoseconds);

}  // namespace detail

// Names one call.  It may be copied, dropping it does not affect the call, and it has no effect on
// a call that is answered.
class Call {
public:
  Call() noexcept = default;
  Call(std::weak_ptr<detail::CallTarget> target, std::uint64_t id) noexcept
      : target_(std::move(target)), id_(id) {}

  // Its callback receives `cancelled`, soon, from the loop.  If the child has not begun the call,
  // it never does.  If it has, this_call::cancelled() says so in the child.  A synchronous task
  // that does not return within Options::grace is ended, and so is an asynchronous one whose loop
  // makes no iteration in that time; the calls behind it go to another child.
  void cancel() const {
    if (const auto target = target_.lock()) target->cancel(id_);
  }
  // Counts from now on; replaces Options::deadline or an earlier deadline.  Then its callback
  // receives `deadline`, never early; the rest is as for cancel(), with half of Options::grace
  // between the steps.
  Call set_deadline(std::chrono::nanoseconds time) const {
    detail::check_call_deadline(time);
    if (const auto target = target_.lock()) target->set_deadline(id_, time);
    return *this;
  }
  std::uint64_t id() const noexcept { return id_; }  // unique within its Remote or Pool, increasing

private:
  std::weak_ptr<detail::CallTarget> target_;
  std::uint64_t id_ = 0;
};

namespace detail {

// The result of a call whose answer was received; a codec may refuse it.
template <class Inc>
Result<Inc> decoded(Inc (*get)(Reader&), Reader& in) {
  try {
    if constexpr (std::is_void_v<Inc>) {
      get(in);
      return {};
    } else {
      return get(in);
    }
  } catch (const Error& error) {
    return error.with_delivery(Delivery::started);
  }
}

// The callback of a call that is about to be made.  Where both forms fit, the short one wins.
template <class Inc, class F, class Core>
Answer answer_to(Inc (*get)(Reader&), F&& callback, const Core& core) {
  using G = std::decay_t<F>;
  if constexpr (std::is_invocable_v<G&, Result<Inc>>) {
    return [get, callback = std::forward<F>(callback)](Reader* in, const Error* error) mutable {
      callback(in ? decoded(get, *in) : Result<Inc>(*error));
    };
  } else {
    static_assert(std::is_invocable_v<G&, Result<Inc>, Call>,
                  "evparallel: the callback of a call must be void(Result<Inc>) or "
                  "void(Result<Inc>, Call)");
    // The call is answered by then, so it needs no target.
    return [get, callback = std::forward<F>(callback), call = Call({}, core.next_id())](
               Reader* in, const Error* error) mutable {
      callback(in ? decoded(get, *in) : Result<Inc>(*error), call);
    };
  }
}

// Runs the loop until one call is answered; `begin` makes the call with the callback that it gets.
template <class Inc, class Begin>
Result<Inc> wait_for(LoopRunner& loop, Begin begin) {
  struct Waiting {
    bool done = false;
    std::optional<Result<Inc>> result;
  };
  loop.check_can_run();
  const auto waiting = std::make_shared<Waiting>();
  const Call call = begin([waiting](Result<Inc> result) {
    waiting->result.emplace(std::move(result));
    waiting->done = true;
  });
  try {
    if (loop.run_until(waiting->done)) return std::move(*waiting->result);
  } catch (...) {
    call.cancel();
    throw;
  }
  call.cancel();
  return Error(Errc::cancelled, "cancelled: the loop was stopped before the call was answered");
}

// ---- the forms of a call ----

// How an argument is passed that stays with the caller, and how one that is moved in: numbers by
// value in either case.
template <class T>
using Kept = std::conditional_t<std::is_scalar_v<T>, T, const T&>;
template <class T>
using Moved = std::conditional_t<std::is_scalar_v<T>, T, T&&>;
template <class... T>
constexpr bool any_moved = !(std::is_scalar_v<T> && ...);

// Whether these are not `count` values, with CallOptions in front of them or without.
template <std::size_t count, class... Given>
constexpr bool is_wrong_number = sizeof...(Given) != count;
template <std::size_t count, class First, class... Rest>
constexpr bool is_wrong_number<count, First, Rest...> =
    sizeof...(Rest) + (std::is_same_v<First, CallOptions> ? 0 : 1) != count &&
    sizeof...(Rest) + 1 != count;

// A value that stands for all arguments, as an item of a map.
template <class... Args>
struct ItemOf {
  using type = std::tuple<Args...>;
};
template <class Arg>
struct ItemOf<Arg> {
  using type = Arg;
};

// How the arguments of a function are written; chosen where it is made, and no part of its type.
template <class... Args>
struct ArgumentCodecs {
  void (*put_copy)(Writer&, const Args&...) = nullptr;
  void (*put_moved)(Writer&, Args&&...) = nullptr;

  template <class... Given>
  void put(Writer& out, Given&&... arguments) const {
    if constexpr ((std::is_lvalue_reference_v<Given> || ...))
      put_copy(out, arguments...);
    else
      put_moved(out, std::move(arguments)...);
  }
  template <class Item>
  void put_item(Writer& out, Item&& item) const {
    if constexpr (sizeof...(Args) == 1)
      put(out, std::forward<Item>(item));
    else
      std::apply([&](auto&&... part) { put(out, std::forward<decltype(part)>(part)...); },
                 std::forward<Item>(item));
  }
};

// The same, and how its answer is read.
template <class Inc, class... Args>
struct CallCodecs : ArgumentCodecs<Args...> {
  Inc (*get)(Reader&) = nullptr;

  friend bool operator==(const CallCodecs& one, const CallCodecs& other) noexcept {
    return one.put_copy == other.put_copy && one.put_moved == other.put_moved &&
           one.get == other.get;
  }
};

template <class IncCodec, class Inc>
Inc get_answer(Reader& in) {
  if constexpr (std::is_void_v<Inc>)
    in.expect_end();
  else
    return decode<IncCodec, Inc>(in);
}

// From a function type and the choice of its codecs: what Remote and Pool need of both.
template <class Signature, class IncIo, class OutIo>
struct CallType;
template <class Inc, class... Args, class IncIo, class OutIo>
struct CallType<Inc(Args...), IncIo, OutIo> {
  using IncCodec = checked_codec_t<IncIo, Inc>;
  using ArgumentsCodec = Arguments<OutIo, Args...>;
  static constexpr CallCodecs<Inc, Args...> codecs() noexcept {
    return {{&ArgumentsCodec::put_copy, &ArgumentsCodec::put_moved}, &get_answer<IncCodec, Inc>};
  }
};

// What Remote and Pool have in common: `Core` is the interface behind them.
template <class Core, class Inc, class... Args>
class CallHandle {
  static_assert((std::is_same_v<Args, std::decay_t<Args>> && ...),
                "evparallel: Remote and Pool name the types of the values, without const and &: "
                "Remote<Inc(std::string)>");
  template <bool moved>
  using IfMoved = std::enable_if_t<moved, int>;

public:
  using result_type = Result<Inc>;
  using Codecs = CallCodecs<Inc, Args...>;

  // Makes one call, and runs the loop until it is answered; other callbacks run meanwhile.  If
  // Reactor::stop() ends that, the call is cancelled, and the result is `cancelled`.
  // Fails: std::logic_error inside a callback of that loop, or after close(); an exception that has
  // left another callback: then the call is cancelled, too.
  [[nodiscard]] Result<Inc> wait(Kept<Args>... arguments) {
    return wait_for_call(CallOptions{}, std::as_const(arguments)...);
  }
  [[nodiscard]] Result<Inc> wait(const CallOptions& options, Kept<Args>... arguments) {
    return wait_for_call(options, std::as_const(arguments)...);
  }
  template <bool moved = any_moved<Args...>, IfMoved<moved> = 0>
  [[nodiscard]] Result<Inc> wait(Moved<Args>... arguments) {
    return wait_for_call(CallOptions{}, std::move(arguments)...);
  }
  template <bool moved = any_moved<Args...>, IfMoved<moved> = 0>
  [[nodiscard]] Result<Inc> wait(const CallOptions& options, Moved<Args>... arguments) {
    return wait_for_call(options, std::move(arguments)...);
  }
  // Reports the mistake if the number of arguments is wrong.
  template <class... Given, std::enable_if_t<is_wrong_number<sizeof...(Args), Given...>, int> = 0>
  Result<Inc> wait(const Given&...) {
    static_assert(!is_wrong_number<sizeof...(Args), Given...>,
                  "evparallel: wait() takes the arguments of the function, as many as it has; "
                  "CallOptions may be in front of them");
    return Error(Errc::cancelled, "");
  }

  std::size_t pending() const { return core_ ? core_->pending() : 0; }
  // Accepts no more calls.  Calls in progress are answered; then its children end.
  void close() { core_->close(); }

  explicit operator bool() const noexcept { return core_ != nullptr; }

  // For the other parts of the library.
  LoopRunner& loop_runner() const noexcept { return core_->loop_runner(); }

protected:
  CallHandle() noexcept = default;
  CallHandle(std::shared_ptr<Core> core, const Codecs& codecs) noexcept
      : core_(std::move(core)), codecs_(codecs) {}
  CallHandle(CallHandle&&) noexcept = default;
  CallHandle& operator=(CallHandle&& other) noexcept {
    if (this != &other) {
      abort();
      core_ = std::move(other.core_);
      codecs_ = other.codecs_;
    }
    return *this;
  }
  ~CallHandle() { abort(); }

  template <class F, class... Given>
  Call call(const CallOptions& options, F&& callback, Given&&... arguments) {
    typename Core::Message message(*core_);
    try {
      codecs_.put(*message, std::forward<Given>(arguments)...);
    } catch (const Error& error) {
      return core_->refuse(error, answer(std::forward<F>(callback)));
    }
    return core_->call(*message, answer(std::forward<F>(callback)), options);
  }

  Core& core() const noexcept { return *core_; }
  std::shared_ptr<Core> core_;
  Codecs codecs_{};

private:
  template <class... Given>
  Result<Inc> wait_for_call(const CallOptions& options, Given&&... arguments) {
    return wait_for<Inc>(core_->loop_runner(), [&](auto&& callback) {
      return call(options, std::move(callback), std::forward<Given>(arguments)...);
    });
  }
  template <class F>
  Answer answer(F&& callback) const {
    return answer_to(codecs_.get, std::forward<F>(callback), *core_);
  }
  void abort() noexcept {
    if (core_) core_->abort();
    core_.reset();
  }
};

}  // namespace detail

}  // namespace evparallel
