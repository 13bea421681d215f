// reactor_thread.hpp - a Reactor in a thread of its own, for programs without a loop.
// Licence: see COPYING.  Manual: evparallel_reactor_thread(3).
//
// Any thread may use a ReactorThread and its handles, several at once, and may copy and drop a
// handle.  Arguments are converted, and taken, in the thread that calls.  "The thread" is that of
// the ReactorThread: there the Reactor lives, callbacks run, and children are begun and ended.
//
// In a process that the program itself has forked, an inherited ReactorThread and its handles do
// nothing, and may be destroyed: there is no such thread.  Calls and posts throw std::logic_error,
// and futures from before the fork are never ready.
#pragma once

#include <evparallel/detail/thread_calls.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace evparallel {

// Names one call, or one map, of a handle of a ReactorThread.  It may be copied, and dropping it
// does not affect the call.
class SharedCall {
public:
  SharedCall() noexcept = default;
  SharedCall(std::weak_ptr<detail::ReactorThreadInterface> thread,
             std::weak_ptr<detail::CancelledInThread> call, std::uint64_t id) noexcept
      : thread_(std::move(thread)), call_(std::move(call)), id_(id) {}

  // As Call::cancel(), soon, in the thread: the answer is Error{cancelled}, unless there is one
  // already.
  void cancel() const {
    const auto thread = thread_.lock();
    if (!thread || call_.expired()) return;
    Callback<void()> in_thread = [call = call_] {
      if (const auto open = call.lock()) open->cancel();
    };
    thread->post(in_thread);
  }
  std::uint64_t id() const noexcept { return id_; }  // unique among the calls of the handle

private:
  std::weak_ptr<detail::ReactorThreadInterface> thread_{};
  std::weak_ptr<detail::CancelledInThread> call_{};
  std::uint64_t id_ = 0;
};

// The future of one call, or of one map: a std::future, which it converts to, with cancel().  Dropping
// it neither blocks nor cancels.  get() throws Error.  Do not wait for it in the thread itself.
template <class T>
class CallFuture : public std::future<T> {
public:
  CallFuture() noexcept = default;
  CallFuture(std::future<T>&& answer, SharedCall call) noexcept
      : std::future<T>(std::move(answer)), call_(std::move(call)) {}

  void cancel() const { call_.cancel(); }
  std::uint64_t id() const noexcept { return call_.id(); }

private:
  SharedCall call_{};
};

namespace detail {

// What SharedRemote and SharedPool have in common.
template <class Callee, class Core, class Inc, class... Args>
class SharedHandle {
  using Shared = SharedCallee<Callee, Core>;
  using Reference = CalleeReference<Shared>;

public:
  using result_type = Result<Inc>;

  // As a call, but the answer goes to `callback(Result<Inc>)`, or `callback(Result<Inc>, Call)`, in
  // the loop of another Reactor, and holds that loop until then.  The callback is destroyed there,
  // and without a call if that Reactor ends first.
  // Fails: std::logic_error after close().
  template <class F>
  SharedCall post_to(Reactor& loop, Kept<Args>... arguments, F&& callback) const {
    return post_call(loop, CallOptions{}, std::forward<F>(callback), std::as_const(arguments)...);
  }
  template <class F>
  SharedCall post_to(Reactor& loop, const CallOptions& options, Kept<Args>... arguments,
                     F&& callback) const {
    return post_call(loop, options, std::forward<F>(callback), std::as_const(arguments)...);
  }
  template <class F, bool moved = any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  SharedCall post_to(Reactor& loop, Moved<Args>... arguments, F&& callback) const {
    return post_call(loop, CallOptions{}, std::forward<F>(callback), std::move(arguments)...);
  }
  template <class F, bool moved = any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  SharedCall post_to(Reactor& loop, const CallOptions& options, Moved<Args>... arguments,
                     F&& callback) const {
    return post_call(loop, options, std::forward<F>(callback), std::move(arguments)...);
  }
  // Reports the mistake if the number of arguments is wrong.
  template <class... Given,
            std::enable_if_t<is_wrong_number<sizeof...(Args) + 1, Given...>, int> = 0>
  SharedCall post_to(Reactor&, const Given&...) const {
    static_assert(
        !is_wrong_number<sizeof...(Args) + 1, Given...>,
        "evparallel: post_to() takes a Reactor, the arguments of the function, as many as "
        "it has, and then the callback; CallOptions may be in front of the arguments");
    return {};
  }

  // Calls f(Remote&) or f(Pool&) in the thread, and returns its value, or throws its exception; for
  // everything that this handle does not have.
  // Fails: Error{cancelled} if the ReactorThread has ended.
  template <class F>
  auto invoke(F&& f) const -> std::invoke_result_t<F&, Callee&> {
    check();
    const std::shared_ptr<Shared> shared = reference_->shared;
    return invoke_in(*reference_->thread, [&]() -> std::invoke_result_t<F&, Callee&> {
      if (!shared->core) throw thread_has_ended();
      return std::invoke(f, shared->callee);
    });
  }

  // The number of calls, and maps, without an answer.
  std::size_t pending() const noexcept {
    return reference_ ? reference_->shared->pending.load() : 0;
  }
  // Accepts no more calls, through any copy.  Calls in progress are answered; then its children end.
  void close() const {
    check();
    if (reference_->shared->closed.exchange(true)) return;
    post([shared = reference_->shared] {
      if (shared->core) shared->core->close();
    });
  }

  explicit operator bool() const noexcept { return reference_ != nullptr; }

protected:
  using Codecs = CallCodecs<Inc, Args...>;

  SharedHandle() noexcept = default;
  SharedHandle(std::shared_ptr<ReactorThreadInterface> thread, std::shared_ptr<Shared> shared,
               const Codecs& codecs)
      : reference_(std::make_shared<const Reference>(std::move(thread), std::move(shared))),
        codecs_(codecs) {}

  template <class... Given>
  CallFuture<Inc> call(const CallOptions& options, Given&&... arguments) const {
    const std::uint64_t id = begin(options);
    FutureAnswer<Inc> to;
    std::future<Inc> future = to.future();
    return {std::move(future), send(id, options, std::move(to), std::forward<Given>(arguments)...)};
  }

  // Fails: std::logic_error.
  void check() const {
    if (!reference_) refuse_closed_handle(true);
    reference_->thread->check_at_home();
  }
  void check_open() const {
    check();
    if (reference_->shared->closed) refuse_closed_handle(false);
  }
  std::uint64_t next_id() const noexcept { return reference_->shared->next_id++; }
  template <class F>
  void post(F&& f) const {
    Callback<void()> callback = std::forward<F>(f);
    reference_->thread->post(callback);
  }
  SharedCall name_of(std::shared_ptr<CancelledInThread> call, std::uint64_t id) const {
    return SharedCall(reference_->thread, std::move(call), id);
  }
  const std::shared_ptr<Shared>& shared() const noexcept { return reference_->shared; }
  const Codecs& codecs() const noexcept { return codecs_; }

private:
  std::uint64_t begin(const CallOptions& options) const {
    check_open();
    check_call_options(options);
    return next_id();
  }
  template <class F, class... Given>
  SharedCall post_call(Reactor& loop, const CallOptions& options, F&& callback,
                       Given&&... arguments) const {
    using G = std::decay_t<F>;
    static_assert(
        std::is_invocable_v<G&, Result<Inc>> || std::is_invocable_v<G&, Result<Inc>, Call>,
        "evparallel: the callback of post_to() must be void(Result<Inc>) or "
        "void(Result<Inc>, Call)");
    const std::uint64_t id = begin(options);
    LoopAddress(loop).check_at_home();
    return send(id, options, PostedAnswer<Inc, G>(loop, std::forward<F>(callback), id),
                std::forward<Given>(arguments)...);
  }
  template <class To, class... Given>
  SharedCall send(std::uint64_t id, const CallOptions& options, To&& to,
                  Given&&... arguments) const {
    auto made = std::make_shared<ThreadCall<Shared, Inc, To>>(shared(), codecs_.get, options,
                                                              std::move(to));
    if constexpr (std::is_same_v<Core, PoolInterface>)
      made->argument().write(&single_call, sizeof single_call);
    made->write(codecs_, std::forward<Given>(arguments)...);
    SharedCall name = name_of(made, id);
    post([made = std::move(made)] { made->begin(); });
    return name;
  }

  std::shared_ptr<const Reference> reference_{};
  Codecs codecs_{};
};

}  // namespace detail

template <class Signature>
class SharedRemote {
  static_assert(detail::always_false<Signature>,
                "evparallel: SharedRemote names a function type: SharedRemote<Inc(Args...)>");
};

// A Remote of a ReactorThread.  All copies are one handle: dropping the last one ends the child, and
// calls in progress fail with `cancelled`.  May outlive the ReactorThread: then each call fails with
// `cancelled`.
template <class Inc, class... Args>
class SharedRemote<Inc(Args...)>
    : public detail::SharedHandle<Remote<Inc(Args...)>, detail::RemoteInterface, Inc, Args...> {
  using Handle = detail::SharedHandle<Remote<Inc(Args...)>, detail::RemoteInterface, Inc, Args...>;

public:
  SharedRemote() noexcept = default;

  // Calls the function.  Calls of one thread are made in their order.
  // Fails: std::logic_error after close().
  CallFuture<Inc> operator()(detail::Kept<Args>... arguments) const {
    return this->call(CallOptions{}, std::as_const(arguments)...);
  }
  CallFuture<Inc> operator()(const CallOptions& options, detail::Kept<Args>... arguments) const {
    return this->call(options, std::as_const(arguments)...);
  }
  template <bool moved = detail::any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  CallFuture<Inc> operator()(detail::Moved<Args>... arguments) const {
    return this->call(CallOptions{}, std::move(arguments)...);
  }
  template <bool moved = detail::any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  CallFuture<Inc> operator()(const CallOptions& options, detail::Moved<Args>... arguments) const {
    return this->call(options, std::move(arguments)...);
  }
  // Reports the mistake if the number of arguments is wrong.
  template <class... Given,
            std::enable_if_t<detail::is_wrong_number<sizeof...(Args), Given...>, int> = 0>
  CallFuture<Inc> operator()(const Given&...) const {
    static_assert(!detail::is_wrong_number<sizeof...(Args), Given...>,
                  "evparallel: a function of a ReactorThread is called with its arguments, as many "
                  "as it has; CallOptions may be in front of them; post_to() takes a callback");
    return {};
  }

private:
  friend class ReactorThread;
  using Handle::Handle;
};

template <class Signature>
class SharedPool {
  static_assert(detail::always_false<Signature>,
                "evparallel: SharedPool names a function type: SharedPool<Inc(Args...)>");
};

// A Pool of a ReactorThread; its copies and its end are those of a SharedRemote.
template <class Inc, class... Args>
class SharedPool<Inc(Args...)>
    : public detail::SharedHandle<Pool<Inc(Args...)>, detail::PoolInterface, Inc, Args...> {
  using Handle = detail::SharedHandle<Pool<Inc(Args...)>, detail::PoolInterface, Inc, Args...>;

public:
  using Item = typename detail::ItemOf<Args...>::type;

  SharedPool() noexcept = default;

  // Makes one call, as Pool::submit().
  // Fails: std::logic_error after close().
  CallFuture<Inc> submit(detail::Kept<Args>... arguments) const {
    return this->call(CallOptions{}, std::as_const(arguments)...);
  }
  CallFuture<Inc> submit(const CallOptions& options, detail::Kept<Args>... arguments) const {
    return this->call(options, std::as_const(arguments)...);
  }
  template <bool moved = detail::any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  CallFuture<Inc> submit(detail::Moved<Args>... arguments) const {
    return this->call(CallOptions{}, std::move(arguments)...);
  }
  template <bool moved = detail::any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  CallFuture<Inc> submit(const CallOptions& options, detail::Moved<Args>... arguments) const {
    return this->call(options, std::move(arguments)...);
  }
  // Reports the mistake if the number of arguments is wrong.
  template <class... Given,
            std::enable_if_t<detail::is_wrong_number<sizeof...(Args), Given...>, int> = 0>
  CallFuture<Inc> submit(const Given&...) const {
    static_assert(
        !detail::is_wrong_number<sizeof...(Args), Given...>,
        "evparallel: submit() of a SharedPool takes the arguments of the function, as many "
        "as it has; CallOptions may be in front of them; post_to() takes a callback");
    return {};
  }

  // Makes one call for each item, as Pool::map(), and gives all results in the order of the items.
  // The range is moved in or copied, and used in the thread: items are pulled there, and a function
  // that returns std::optional<Item> is called there, as is on_progress.  get() throws what the range
  // has thrown, and Error{cancelled} if the map was cancelled or its pool has ended.
  // Fails: std::logic_error after close().
  template <class R>
  CallFuture<std::vector<Result<Inc>>> map(R&& range, MapOptions options = {}) const {
    static_assert(sizeof...(Args) > 0, "evparallel: the function of a map must take an argument");
    using Map =
        detail::ThreadMap<typename std::decay_t<decltype(this->shared())>::element_type, Inc>;
    this->check_open();
    const std::uint64_t id = this->next_id();
    auto made = std::make_shared<Map>(this->shared());
    auto future = made->future();
    SharedCall name = this->name_of(made, id);
    this->post([made = std::move(made), codecs = this->codecs(),
                own = detail::own_range(std::forward<R>(range)),
                all = std::move(options)]() mutable {
      made->template begin<Item>(codecs, std::move(own), std::move(all));
    });
    return {std::move(future), std::move(name)};
  }

private:
  friend class ReactorThread;
  using Handle::Handle;
};

// A thread with a Reactor.  Make it after init() and all other snapshots: they refuse threads.  It
// blocks all signals but those of faults.
//
// The destructor ends the thread, as stop() does.
class ReactorThread {
public:
  // Fails: std::system_error; std::logic_error in a child, which has this_reactor().
  ReactorThread() : thread_(detail::start_reactor_thread()) {}
  ReactorThread(const ReactorThread&) = delete;
  ReactorThread& operator=(const ReactorThread&) = delete;
  ~ReactorThread() { thread_->abandon(); }

  // As run() of a Reactor: the child is forked now.  Waits until the thread has done that.  Codecs
  // as in run().
  // Fails: as run(): Error{no_snapshot}, Error{spawn_failed}, std::logic_error.  Error{cancelled}
  // after stop().
  template <class IncIo = DefaultIo, class OutIo = DefaultIo, class F>
  [[nodiscard]] auto run(F f, const Options& options = {}) const {
    using R = detail::RemoteFunction<F, IncIo, OutIo>;
    return begin<SharedRemote<typename R::signature>, Remote<typename R::signature>,
                 detail::RemoteInterface>(
        [&, task = R::task(f)](Reactor& loop) { return detail::start_remote(loop, task, options); },
        R::codecs());
  }
  template <template <class> class IncIo, template <class> class OutIo = Io, class F>
  [[nodiscard]] auto run(F f, const Options& options = {}) const {
    return run<detail::TemplateIo<IncIo>, detail::TemplateIo<OutIo>>(std::move(f), options);
  }
  template <template <class> class IncIo, class OutIo, class F>
  [[nodiscard]] auto run(F f, const Options& options = {}) const {
    return run<detail::TemplateIo<IncIo>, OutIo>(std::move(f), options);
  }
  template <class IncIo, template <class> class OutIo, class F>
  [[nodiscard]] auto run(F f, const Options& options = {}) const {
    return run<IncIo, detail::TemplateIo<OutIo>>(std::move(f), options);
  }

  // As pool() of a Reactor; the rest as for run().
  template <class IncIo = DefaultIo, class OutIo = DefaultIo, class F>
  [[nodiscard]] auto pool(F f, const PoolOptions& options = {}) const {
    using P = detail::PoolFunction<F, IncIo, OutIo>;
    return begin<SharedPool<typename P::signature>, Pool<typename P::signature>,
                 detail::PoolInterface>(
        [&, task = P::task(f)](Reactor& loop) mutable {
          return detail::start_pool(loop, std::move(task), options);
        },
        P::codecs());
  }
  template <template <class> class IncIo, template <class> class OutIo = Io, class F>
  [[nodiscard]] auto pool(F f, const PoolOptions& options = {}) const {
    return pool<detail::TemplateIo<IncIo>, detail::TemplateIo<OutIo>>(std::move(f), options);
  }
  template <template <class> class IncIo, class OutIo, class F>
  [[nodiscard]] auto pool(F f, const PoolOptions& options = {}) const {
    return pool<detail::TemplateIo<IncIo>, OutIo>(std::move(f), options);
  }
  template <class IncIo, template <class> class OutIo, class F>
  [[nodiscard]] auto pool(F f, const PoolOptions& options = {}) const {
    return pool<IncIo, detail::TemplateIo<OutIo>>(std::move(f), options);
  }

  // Calls `callback()`, or `callback(Reactor&)`, in the thread, in the order of the posts.  What it
  // makes on the Reactor is used, and dropped, in the thread only.
  // Fails: Error{cancelled} after stop().
  template <class F>
  void post(F&& callback) const {
    using G = std::decay_t<F>;
    constexpr bool is_plain = std::is_invocable_v<G&>;
    constexpr bool takes_loop = std::is_invocable_v<G&, Reactor&>;
    static_assert(
        is_plain || takes_loop,
        "evparallel: the callback of ReactorThread::post must be void() or void(Reactor&)");
    if constexpr (is_plain)
      detail::post_or_throw(*thread_, std::forward<F>(callback));
    else if constexpr (takes_loop)
      detail::post_or_throw(*thread_,
                            [raw = thread_.get(), callback = std::forward<F>(callback)]() mutable {
                              callback(raw->reactor());
                            });
  }
  // The same, and waits for it: returns the value of `f(Reactor&)`, or throws its exception.  In the
  // thread itself it calls f at once.  The caller must hold nothing that the thread waits for.
  // Fails: Error{cancelled} after stop().
  template <class F>
  auto invoke(F&& f) const -> std::invoke_result_t<F&, Reactor&> {
    return detail::invoke_in(*thread_, [&]() -> std::invoke_result_t<F&, Reactor&> {
      return std::invoke(f, thread_->reactor());
    });
  }

  // Called in the thread with an exception that leaves a callback of the Reactor, one that was
  // posted included; the loop goes on.  Without it, or if it throws, the program is terminated, as
  // by an exception that leaves a std::thread.
  void on_exception(Callback<void(std::exception_ptr)> callback) const {
    post([raw = thread_.get(), callback = std::move(callback)]() mutable {
      raw->set_on_exception(std::move(callback));
    });
  }

  // Ends the thread, and waits until it has ended.  Callbacks that were posted before are called.
  // Calls and maps without an answer get Error{cancelled}, and so do later ones; children end as
  // those of dropped handles.  Posts that come later are dropped.  In a callback of the thread it
  // does not wait; the thread ends after that callback.  One thread at a time may call it.
  void stop() noexcept { thread_->stop(); }

private:
  template <class Handle, class Callee, class Core, class Start, class Codecs>
  Handle begin(Start&& start, const Codecs& codecs) const {
    using Shared = detail::SharedCallee<Callee, Core>;
    auto shared = invoke([&](Reactor& loop) {
      std::shared_ptr<Core> core = start(loop);
      auto made = std::make_shared<Shared>(core, Callee(core, codecs));
      thread_->keep(made);
      return made;
    });
    return Handle(thread_, std::move(shared), codecs);
  }

  std::shared_ptr<detail::ReactorThreadInterface> thread_;
};

}  // namespace evparallel
