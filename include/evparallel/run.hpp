// run.hpp - one child as a remote function, for any number of calls.
// Licence: see COPYING.  Manual: evparallel_run(3).
#pragma once

#include <evparallel/options.hpp>
#include <evparallel/result.hpp>
#include <evparallel/snapshot.hpp>
#include <evparallel/task.hpp>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

namespace evparallel {

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

// A Remote, independent of its types.
class RemoteInterface {
public:
  virtual DraftBuffer& drafts() noexcept = 0;
  // The memory of a short `argument` stays with the caller.
  virtual Call call(Writer& argument, Answer&&) = 0;
  virtual Call refuse(const Error&, Answer) = 0;  // a call whose argument could not be written
  virtual pid_t pid() const noexcept = 0;
  virtual std::size_t pending() const noexcept = 0;
  virtual void close() = 0;
  virtual void abort() noexcept = 0;  // its handle is gone
  virtual LoopRunner& loop_runner() noexcept = 0;

protected:
  ~RemoteInterface() = default;
};

EVPARALLEL_API std::shared_ptr<RemoteInterface> start_remote(Reactor&, const Task&, const Options&);

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

template <class Inc, class F>
Answer answer_to(Inc (*get)(Reader&), F&& callback) {
  static_assert(std::is_invocable_v<std::decay_t<F>&, Result<Inc>>,
                "evparallel: the callback of a call must be void(Result<Inc>)");
  return [get, callback = std::forward<F>(callback)](Reader* in, const Error* error) mutable {
    callback(in ? decoded(get, *in) : Result<Inc>(*error));
  };
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

}  // namespace detail

// A remote function: takes Out (nothing, if that is void), answers Inc.  Move-only: dropping it
// ends the child, and calls in progress fail with `cancelled`.  May outlive its Reactor and does
// nothing then.
//
// Calls may be made at any time, and any number at once; a synchronous task answers them in order,
// one after the other, in one child.  The callback of each call is called exactly once, from the
// loop, whichever process dies.  A child that has died is replaced at the next call.
template <class Inc, class Out>
class Remote {
public:
  using result_type = Result<Inc>;

  Remote() noexcept = default;
  Remote(Remote&& other) noexcept = default;
  Remote& operator=(Remote&& other) noexcept {
    if (this != &other) {
      abort();
      core_ = std::move(other.core_);
      codecs_ = other.codecs_;
    }
    return *this;
  }
  ~Remote() { abort(); }

  // The type that is sent; std::monostate if there is no argument.
  using Sent = std::conditional_t<std::is_void_v<Out>, std::monostate, Out>;

  // Calls the function; `callback(Result<Inc>)` receives the answer.  A value that is moved in is
  // sent without a copy if its codec can do that.
  // Fails: std::logic_error after close().
  template <class F>
  Call operator()(const Sent& argument, F&& callback) {
    return call(argument, std::forward<F>(callback));
  }
  template <class F>
  Call operator()(Sent&& argument, F&& callback) {
    return call(std::move(argument), std::forward<F>(callback));
  }
  // Reports the mistake if the function takes no argument.
  template <class Argument, class F, class O = Out, class = std::enable_if_t<std::is_void_v<O>>>
  Call operator()(const Argument&, F&&) {
    static_assert(!std::is_void_v<O>,
                  "evparallel: this remote function takes no argument; call it as f(callback)");
    return {};
  }
  template <class F>
  Call operator()(F&& callback) {
    static_assert(
        std::is_void_v<Out>,
        "evparallel: this remote function takes an argument; call it as f(argument, callback)");
    Writer message;
    return core_->call(message, answer(std::forward<F>(callback)));
  }

  // Makes one call, and runs the loop until it is answered; other callbacks run meanwhile.  If
  // Reactor::stop() ends that, the call is cancelled, and the result is `cancelled`.
  // Fails: std::logic_error inside a callback of that loop, or after close(); an exception that has
  // left another callback: then the call is cancelled, too.
  [[nodiscard]] Result<Inc> wait(const Sent& argument) {
    return wait_with([&](auto&& callback) { return (*this)(argument, std::move(callback)); });
  }
  [[nodiscard]] Result<Inc> wait(Sent&& argument) {
    return wait_with(
        [&](auto&& callback) { return (*this)(std::move(argument), std::move(callback)); });
  }
  [[nodiscard]] Result<Inc> wait() {
    static_assert(std::is_void_v<Out>,
                  "evparallel: this remote function takes an argument: f.wait(argument)");
    return wait_with([&](auto&& callback) { return (*this)(std::move(callback)); });
  }

  pid_t pid() const noexcept { return core_ ? core_->pid() : 0; }  // 0 until known
  std::size_t pending() const noexcept { return core_ ? core_->pending() : 0; }
  // Accepts no more calls.  Calls in progress are answered, then the child ends.
  void close() { core_->close(); }

  explicit operator bool() const noexcept { return core_ != nullptr; }

  struct Codecs;
  Remote(std::shared_ptr<detail::RemoteInterface> core, const Codecs& codecs)
      : core_(std::move(core)), codecs_(codecs) {}

  // The codecs are chosen where the function is made and are not part of its type.
  struct Codecs {
    Inc (*get)(Reader&);
    void (*put_copy)(Writer&, const Sent&);
    void (*put_moved)(Writer&, Sent&&);
    void put(Writer& out, const Sent& value) const { put_copy(out, value); }
    void put(Writer& out, Sent&& value) const { put_moved(out, std::move(value)); }
  };

private:
  template <class Begin>
  Result<Inc> wait_with(Begin begin) {
    return detail::wait_for<Inc>(core_->loop_runner(), begin);
  }

  template <class Argument, class F>
  Call call(Argument&& argument, F&& callback) {
    detail::Draft draft(core_->drafts());
    try {
      codecs_.put(*draft, std::forward<Argument>(argument));
    } catch (const Error& error) {
      return core_->refuse(error, answer(std::forward<F>(callback)));
    }
    return core_->call(*draft, answer(std::forward<F>(callback)));
  }

  template <class F>
  detail::Answer answer(F&& callback) const {
    return detail::answer_to(codecs_.get, std::forward<F>(callback));
  }

  void abort() noexcept {
    if (core_) core_->abort();
    core_.reset();
  }
  std::shared_ptr<detail::RemoteInterface> core_;
  Codecs codecs_{};
};

namespace detail {

template <class IncCodec, class Inc>
Inc get_answer(Reader& in) {
  if constexpr (std::is_void_v<Inc>)
    in.expect_end();
  else
    return decode<IncCodec, Inc>(in);
}

template <class OutCodec, class Out>
struct PutArgument {
  static void copy(Writer& out, const Out& value) { encode<OutCodec>(out, value); }
  static void moved(Writer& out, Out&& value) { encode<OutCodec>(out, std::move(value)); }
};
template <class OutCodec>
struct PutArgument<OutCodec, void> {
  static void copy(Writer&, const std::monostate&) {}
  static void moved(Writer&, std::monostate&&) {}
};

}  // namespace detail

// Makes f a remote function: f is Inc(Out), Inc(), or asynchronous: void(Out, Reply<Inc>),
// void(Reply<Inc>).  Its child is forked now.  Codecs: of the answer (Inc), then of the argument
// (Out); Io if none is named.  If f is in a library that was loaded after the snapshot was taken,
// each call fails with Error{unknown_function}.
// Fails: Error{no_snapshot}, Error{spawn_failed} (no descriptors); std::logic_error for a callable
// that cannot be sent.
template <class IncIo = DefaultIo, class OutIo = DefaultIo, class F>
[[nodiscard]] auto run(Reactor& reactor, F f, const Options& options = {}) {
  using S = detail::shape_of<F>;
  using Inc = typename S::Inc;
  using Out = typename S::Out;
  using IncCodec = detail::checked_codec_t<IncIo, Inc>;
  using OutCodec = detail::checked_codec_t<OutIo, Out>;
  void (*entry)(detail::ChildInterface&, Reader&);
  if constexpr (S::replies_later)
    entry = &detail::run_later_entry<F, IncCodec, OutCodec>;
  else
    entry = &detail::run_entry<F, IncCodec, OutCodec>;
  using R = Remote<Inc, Out>;
  using Put = detail::PutArgument<OutCodec, Out>;
  return R(detail::start_remote(reactor, detail::make_task(f, entry, S::replies_later), options),
           typename R::Codecs{&detail::get_answer<IncCodec, Inc>, &Put::copy, &Put::moved});
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
