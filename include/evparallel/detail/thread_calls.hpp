// thread_calls.hpp - what other threads ask of a ReactorThread.
// Licence: see COPYING.  Manual: evparallel_reactor_thread(3).
#pragma once

#include <evparallel/detail/loop_address.hpp>
#include <evparallel/pool.hpp>
#include <evparallel/run.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

namespace evparallel {

namespace detail {

// What the thread owns; no other thread uses its members, or ends it.
class OwnedByThread {
public:
  virtual void end(bool with_the_thread) noexcept = 0;

protected:
  ~OwnedByThread() = default;
};

// The thread of a ReactorThread.  Without a remark, any thread may call a function.
class ReactorThreadInterface {
public:
  // Calls it in the thread, in the order of the posts.  Returns false, and leaves the callback, if
  // the thread has ended, or belongs to another process.
  virtual bool post(Callback<void()>&) = 0;
  virtual bool at_home() const noexcept = 0;
  // Fails: std::logic_error in a process that has only inherited it.
  virtual void check_at_home() const = 0;
  virtual bool is_current() const noexcept = 0;  // the caller is this thread
  // Calls what was posted before, ends, and joins the thread, unless it is the caller.
  virtual void stop() noexcept = 0;
  virtual void abandon() noexcept = 0;  // stop(), for ever

  // In the thread.
  virtual Reactor& reactor() noexcept = 0;
  virtual void set_on_exception(Callback<void(std::exception_ptr)>) = 0;
  virtual void keep(std::shared_ptr<OwnedByThread>) = 0;  // until end(), or the end of the thread
  virtual void end(OwnedByThread&) noexcept = 0;

protected:
  ~ReactorThreadInterface() = default;
};

// Fails: std::system_error; std::logic_error in a child.
EVPARALLEL_API std::shared_ptr<ReactorThreadInterface> start_reactor_thread();

// Error{cancelled}: the thread has ended.
EVPARALLEL_API Error thread_has_ended();

// Fails: std::logic_error.
EVPARALLEL_API void check_call_options(const CallOptions&);
[[noreturn]] EVPARALLEL_API void refuse_closed_handle(bool is_empty);

// Fails: Error{cancelled}, std::logic_error: see ReactorThreadInterface::post().
EVPARALLEL_API void post_or_throw(ReactorThreadInterface&, Callback<void()>);

// ---- answers of a thread ----

// A promise that gets an error if it is dropped: its thread has ended then.
template <class T>
class KeptPromise {
public:
  KeptPromise() = default;
  KeptPromise(KeptPromise&& other) noexcept
      : promise_(std::move(other.promise_)), open_(std::exchange(other.open_, false)) {}
  KeptPromise& operator=(KeptPromise&&) = delete;
  ~KeptPromise() {
    if (open_) fail(std::make_exception_ptr(thread_has_ended()));
  }

  std::future<T> future() { return promise_.get_future(); }

  // The value that f() returns, or the exception that leaves it.
  template <class F>
  void set_by(F&& f) {
    try {
      if constexpr (std::is_void_v<T>) {
        f();
        promise_.set_value();
      } else {
        promise_.set_value(f());
      }
      open_ = false;
    } catch (...) {
      fail(std::current_exception());
    }
  }
  void set(Result<T>&& result) {
    if (!result) return fail(std::make_exception_ptr(result.error()));
    set_by([&]() -> T { return std::move(result).value(); });
  }
  void fail(const std::exception_ptr& exception) {
    open_ = false;
    promise_.set_exception(exception);
  }

private:
  std::promise<T> promise_{};
  bool open_ = true;
};

// Calls f() in the thread, and returns its value.
template <class F>
auto invoke_in(ReactorThreadInterface& thread, F&& f) -> decltype(f()) {
  using T = decltype(f());
  static_assert(!std::is_reference_v<T>,
                "evparallel: the function of invoke() must return a value, because a reference "
                "would be used in another thread");
  if (thread.is_current()) return f();
  KeptPromise<T> promise;
  std::future<T> answer = promise.future();
  post_or_throw(thread, [&f, promise = std::move(promise)]() mutable { promise.set_by(f); });
  return answer.get();
}

// ---- one call ----

// A call, or a map, that its caller can cancel.
class CancelledInThread {
public:
  virtual void cancel() = 0;  // in the thread

protected:
  ~CancelledInThread() = default;
};

// What the handles of one callee share.
template <class Callee, class Core>
class SharedCallee final : public OwnedByThread {
public:
  // In the thread.
  SharedCallee(std::shared_ptr<Core> c, Callee&& handle)
      : core(std::move(c)), callee(std::move(handle)) {}
  void end(bool with_the_thread) noexcept override {
    ended_with_thread = with_the_thread;
    core.reset();
    callee = Callee();
  }
  std::shared_ptr<Core> core;  // null after the end
  Callee callee;
  bool ended_with_thread = false;

  // Any thread.
  std::atomic<bool> closed{false};
  std::atomic<std::size_t> pending{0};
  std::atomic<std::uint64_t> next_id{0};
};

// The reference of the handles to it; the last one ends the callee, in the thread.
template <class Shared>
class CalleeReference {
public:
  CalleeReference(std::shared_ptr<ReactorThreadInterface> t, std::shared_ptr<Shared> s) noexcept
      : thread(std::move(t)), shared(std::move(s)) {}
  CalleeReference(const CalleeReference&) = delete;
  CalleeReference& operator=(const CalleeReference&) = delete;
  ~CalleeReference() {
    // In a forked copy of the program it may be half changed; the thread, which does not exist there,
    // keeps it for ever.
    if (!thread->at_home()) return;
    Callback<void()> end = [raw = thread.get(), owned = shared] { raw->end(*owned); };
    thread->post(end);
  }

  const std::shared_ptr<ReactorThreadInterface> thread;
  std::shared_ptr<Shared> shared;
};

// The answer of a call becomes that of a future.
template <class Inc>
class FutureAnswer {
public:
  std::future<Inc> future() { return promise_.future(); }
  void operator()(Result<Inc>&& result) { promise_.set(std::move(result)); }

private:
  KeptPromise<Inc> promise_{};
};

// The answer of a call goes to a callback in the loop of another Reactor.
template <class Inc, class F>
class PostedAnswer {
public:
  template <class Given>
  PostedAnswer(Reactor& loop, Given&& callback, std::uint64_t id) : address_(loop) {
    place_ = address_.keep(
        std::make_unique<Waiting>(std::forward<Given>(callback), loop.hold(), Call({}, id)));
  }
  void operator()(Result<Inc>&& result) {
    if (place_)
      address_.pass(*place_, [result = std::move(result)](WaitingCallback& waiting) mutable {
        static_cast<Waiting&>(waiting).call(std::move(result));
      });
  }

private:
  struct Waiting final : WaitingCallback {
    template <class Given>
    Waiting(Given&& given, Hold&& h, const Call& c)
        : callback(std::forward<Given>(given)), hold(std::move(h)), of(c) {}
    void call(Result<Inc>&& result) {
      if constexpr (std::is_invocable_v<F&, Result<Inc>>)
        callback(std::move(result));
      else
        callback(std::move(result), of);
    }
    F callback;
    Hold hold;
    Call of;
  };

  LoopAddress address_;
  std::optional<LoopAddress::Place> place_{};
};

// A call from the moment when another thread makes it until it is answered, exactly once.
template <class Shared, class Inc, class To>
class ThreadCall final : public CancelledInThread,
                         public std::enable_shared_from_this<ThreadCall<Shared, Inc, To>> {
public:
  ThreadCall(std::shared_ptr<Shared> shared, Inc (*get)(Reader&), const CallOptions& options,
             To&& to)
      : shared_(std::move(shared)), get_(get), options_(options), to_(std::move(to)) {
    ++shared_->pending;
  }
  // Its callee or the thread has ended, and forgotten it.
  ~ThreadCall() {
    if (!answered_)
      answer(thread_has_ended().with_delivery(begun_ ? Delivery::started : Delivery::not_sent));
  }
  ThreadCall(const ThreadCall&) = delete;
  ThreadCall& operator=(const ThreadCall&) = delete;

  To& to() noexcept { return to_; }

  // In the thread that calls.
  template <class Codecs, class... Given>
  void write(const Codecs& codecs, Given&&... arguments) {
    try {
      codecs.put(argument_, std::forward<Given>(arguments)...);
    } catch (const Error& error) {
      refused_ = error;
    }
  }
  Writer& argument() noexcept { return argument_; }

  // The rest in the thread of the loop.
  void begin() {
    if (!shared_->core) return;
    Answer answered = [self = this->shared_from_this()](Reader* in, const Error* error) {
      self->take(in, error);
    };
    try {
      call_ = refused_ ? shared_->core->refuse(*refused_, std::move(answered))
                       : shared_->core->call(argument_, std::move(answered), options_);
      begun_ = true;
    } catch (const std::logic_error& error) {
      // It was closed while this call was on its way.
      answer(Error(Errc::cancelled, std::string("cancelled: ") + error.what()));
    }
  }
  void cancel() override { call_.cancel(); }

private:
  void take(Reader* in, const Error* error) {
    if (in) return answer(decoded(get_, *in));
    const bool by_thread = error->code() == Errc::cancelled && shared_->ended_with_thread;
    answer(by_thread ? thread_has_ended().with_delivery(error->delivery()) : *error);
  }
  void answer(Result<Inc>&& result) {
    answered_ = true;
    --shared_->pending;  // first: a thread that waits for the answer may look
    to_(std::move(result));
  }

  std::shared_ptr<Shared> shared_;
  Inc (*get_)(Reader&);
  CallOptions options_;
  Writer argument_{};
  std::optional<Error> refused_{};
  To to_;
  Call call_{};
  bool begun_ = false;
  bool answered_ = false;
};

// ---- one map ----

// A range of the caller: its own, so that the thread can use it at any time.  An array has no copy.
template <class R>
auto own_range(R&& range) {
  if constexpr (std::is_array_v<std::remove_reference_t<R>>)
    return std::vector<std::remove_cv_t<std::remove_extent_t<std::remove_reference_t<R>>>>(
        begin_of(range), end_of(range));
  else
    return std::decay_t<R>(std::forward<R>(range));
}

template <class Shared, class Inc>
class ThreadMap final : public CancelledInThread,
                        public std::enable_shared_from_this<ThreadMap<Shared, Inc>> {
public:
  using Results = std::vector<Result<Inc>>;

  explicit ThreadMap(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {
    ++shared_->pending;
  }
  ~ThreadMap() {
    if (!over_) --shared_->pending;
  }
  ThreadMap(const ThreadMap&) = delete;
  ThreadMap& operator=(const ThreadMap&) = delete;

  std::future<Results> future() { return promise_.future(); }

  // In the thread of the loop.
  template <class Item, class Codecs, class R>
  void begin(const Codecs& codecs, R&& range, MapOptions&& options) {
    if (!shared_->core) return;
    const auto self = this->shared_from_this();
    if constexpr (!is_generator<R>)
      if (!options.total) options.total = size_of_range(range);
    MapTask task;
    task.may_wait = pull_may_wait<R>();
    task.pull = [self, pull = pull_from<R, Item>(std::forward<R>(range), codecs)](
                    Writer& out, std::optional<Error>& refused) mutable {
      try {
        return pull(out, refused);
      } catch (...) {
        self->thrown_ = std::current_exception();
        return false;
      }
    };
    task.on_result = item_result<Inc>(codecs.get, [self](std::size_t index, Result<Inc> result) {
      self->results_.add(index, std::move(result));
    });
    task.on_done = [self](const MapSummary&) { self->end(); };
    try {
      map_ = MapHandle(shared_->core->start_map(std::move(task), std::move(options)));
    } catch (const std::logic_error& error) {
      close(std::make_exception_ptr(
          Error(Errc::cancelled, std::string("cancelled: ") + error.what())));
    }
  }
  void cancel() override {
    cancelled_ = true;
    map_.cancel();
  }

private:
  void end() {
    if (thrown_) return close(thrown_);
    if (!shared_->core && shared_->ended_with_thread)
      return close(std::make_exception_ptr(thread_has_ended()));
    if (!shared_->core || cancelled_)
      return close(std::make_exception_ptr(
          Error(Errc::cancelled, cancelled_ ? "cancelled: the map was cancelled"
                                            : "cancelled: the pool was dropped")));
    close_pending();
    promise_.set_by([&] { return results_.take(); });
  }
  void close(const std::exception_ptr& exception) {
    close_pending();
    promise_.fail(exception);
  }
  void close_pending() noexcept {
    over_ = true;
    --shared_->pending;
  }

  std::shared_ptr<Shared> shared_;
  KeptPromise<Results> promise_{};
  CollectedResults<Inc> results_{};
  MapHandle map_{};
  std::exception_ptr thrown_{};
  bool cancelled_ = false;
  bool over_ = false;
};

}  // namespace detail

}  // namespace evparallel
