// pool.hpp - many calls in few children.
// Licence: see COPYING.  Manual: evparallel_pool(3).
#pragma once

#include <evparallel/map.hpp>
#include <evparallel/options.hpp>
#include <evparallel/snapshot.hpp>
#include <evparallel/stream.hpp>
#include <evparallel/task.hpp>
#include <evparallel/with_state.hpp>

#include <vector>

namespace evparallel {

// An aggregate: set what you need, by name.
struct PoolOptions {
  // The maximum number of children.  0: the number of CPUs that this process may use.
  unsigned workers = 0;
  // The number of children that are started at the beginning, and are kept.
  unsigned min_workers = 0;
  // Other children end when they have been idle for this time.  0: never.
  std::chrono::milliseconds idle_timeout{60000};
  // How each child is made.  `deadline`, `retries` and `idempotent` apply to each call.  A child
  // whose `on_start` fails has ended before its first call.
  Options child{};
  // The snapshots that fork the children, in rotation.  None: child.snapshot.  They need only live
  // during the call of pool().
  std::vector<Snapshot*> snapshots{};
  // If this number of children in a row ends before the first call, calls are refused for a while,
  // with Errc::unhealthy.
  unsigned max_failed_starts = 5;

  // Limits of the waiting calls and of the bytes of their arguments, above which submit() refuses.
  // 0: no limit.
  std::size_t max_queue = 0;
  std::size_t max_queue_bytes = 0;

  // When a child is replaced.  0: never.
  std::size_t max_calls = 0;  // the child gets no more calls than this
  std::chrono::milliseconds max_age{0};
  std::size_t max_rss_growth = 0;  // private memory in bytes, above what it had at its start
};

// Of all times up to now: half of them were at most p50, and so on.  Exact to an eighth.
struct Percentiles {
  std::chrono::nanoseconds p50{0};
  std::chrono::nanoseconds p90{0};
  std::chrono::nanoseconds p99{0};
};

// What happens to one child of a pool.
struct WorkerEvent {
  enum class Kind {
    started,  // it was forked
    ready,    // it can take calls: start hooks and on_start are done
    ended,    // the last event of each child
  };
  Kind kind = Kind::started;
  pid_t pid = 0;  // 0: it was never forked, or its snapshot was lost before the fork was reported
  // The rest is of `ended`.
  std::optional<ExitStatus> status{};
  std::uint64_t calls = 0;       // that it answered, and items
  bool expected = false;         // the pool has ended it: idle, replaced, closed, ...
  std::optional<Error> error{};  // its start has failed, for this reason
};

struct PoolStats {
  std::size_t queued = 0;    // calls that no child has; items of maps count only once they are sent
  std::size_t running = 0;   // calls and items that were sent to a child
  std::uint64_t done = 0;    // calls and items that were answered with a value
  std::uint64_t failed = 0;  // calls and items that were answered with an error
  std::uint64_t retried = 0;    // number of times that one was sent again
  std::uint64_t started = 0;    // children, in total
  std::uint64_t respawned = 0;  // of those: for a child that had died
  std::uint64_t recycled = 0;   // of those: for a child that reached max_calls, max_age, ...
  struct Worker {
    pid_t pid = 0;  // 0: not known yet
    bool ready = false;
    std::size_t running = 0;
    std::uint64_t calls = 0;  // answered calls, and items
    std::chrono::milliseconds age{0};
    std::size_t rss = 0;  // private memory in bytes, as the kernel estimates it
  };
  std::vector<Worker> workers{};
  ResourceUsage usage{};  // of children that have ended
  Percentiles wait{};     // of calls: from submit() until they are sent to a child
  Percentiles run{};      // of calls and items, in a child
};

namespace detail {

// A Pool, independent of its types.  Its functions fail with std::logic_error in another thread than
// that of its loop, but for abort().
class PoolInterface {
public:
  // The message of a call that is being written.
  class Message;
  virtual Call call(Writer& argument, Answer, const CallOptions&) = 0;
  virtual Call refuse(const Error&, Answer) = 0;  // a call whose arguments could not be written
  virtual std::uint64_t next_id() const noexcept = 0;  // of the call that is made next
  virtual bool full() const = 0;
  virtual void set_on_drain(Callback<void()>) = 0;
  virtual void add_on_ready(Callback<void(Result<void>)>) = 0;
  virtual void add_on_replaced(Callback<void(Result<void>)>) = 0;
  virtual void add_on_closed(Callback<void()>) = 0;
  virtual void set_on_worker(Callback<void(const WorkerEvent&)>) = 0;
  virtual std::shared_ptr<MapInterface> start_map(MapTask, MapOptions) = 0;
  virtual std::shared_ptr<StreamInterface> start_stream(MapTask, MapOptions) = 0;
  virtual PoolStats stats() const = 0;
  virtual std::size_t pending() const = 0;
  virtual void close() = 0;
  virtual void shutdown(std::chrono::milliseconds grace) = 0;
  virtual void abort() noexcept = 0;  // its handle is gone.  Any thread
  virtual LoopRunner& loop_runner() noexcept = 0;
  // No task: that of the pool.  No options: those of the pool.
  virtual void replace(std::optional<Task>, const std::optional<PoolOptions>&) = 0;

protected:
  ~PoolInterface() = default;
};

EVPARALLEL_API std::shared_ptr<PoolInterface> start_pool(Reactor&, Task, const PoolOptions&);

// The first byte of an argument.
constexpr char single_call = 0;  // the argument follows; the answer is the bare value
constexpr char chunk_of_calls = 1;

class PoolInterface::Message {
public:
  explicit Message(PoolInterface&) { writer_.write(&single_call, sizeof single_call); }
  Writer& operator*() noexcept { return writer_; }

private:
  Writer writer_;
};

// In a child: answers calls, alone or in chunks.  `limits` stands behind the callable.
EVPARALLEL_API void serve_pool(ChildInterface&, Reader& limits,
                               Callback<void(Reader&, Writer&)> call);

template <class F, class Inc, class IncCodec, class Args>
void pool_entry(ChildInterface& child, Reader& callable) {
  F task = CallableCodec<F>::deserialize(callable);
  auto&& f = begin_task(task);
  serve_pool(child, callable,
             [&f](Reader& in, Writer& out) { answer_call<Inc, IncCodec, Args>(f, in, out); });
}

// A function of a pool: its type, its codecs, and the task of a child.
template <class F, class IncIo, class OutIo>
struct PoolFunction {
  using S = Shape<F>;
  static_assert(
      !S::replies_later,
      "evparallel: the function of a pool must return its answer; only run() takes a Reply");
  using signature = typename S::signature;
  using Type = CallType<signature, IncIo, OutIo>;

  static constexpr auto codecs() noexcept { return Type::codecs(); }
  static Task task(const F& f) {
    using Inc = typename S::Inc;
    using IncCodec = typename Type::IncCodec;
    return make_task(f, &pool_entry<F, Inc, IncCodec, typename Type::ArgumentsCodec>,
                     takes_descriptors<Inc, IncCodec>);
  }
};

}  // namespace detail

template <class Signature>
class Pool {
  static_assert(detail::always_false<Signature>,
                "evparallel: Pool names a function type: Pool<Inc(Args...)>");
};

// A function that many children run: it takes Args and answers Inc.  Move-only: dropping it ends
// the children, and calls in progress fail with `cancelled`.  May outlive its Reactor and does
// nothing then.
//
// Each callback is called exactly once, from the loop, whichever process dies.  When a child dies,
// only the call that it runs is lost.
template <class Inc, class... Args>
class Pool<Inc(Args...)> : public detail::CallHandle<detail::PoolInterface, Inc, Args...> {
  using Handle = detail::CallHandle<detail::PoolInterface, Inc, Args...>;
  static constexpr std::size_t count = sizeof...(Args);
  using Handle::codecs_;
  using Handle::core_;

public:
  // An item of a map: the argument of the function, or the std::tuple of its arguments.
  using Item = typename detail::ItemOf<Args...>::type;

  Pool() noexcept = default;
  Pool(std::shared_ptr<detail::PoolInterface> core, const typename Handle::Codecs& codecs)
      : Handle(std::move(core), codecs) {}

  // Makes one call; `callback(Result<Inc>)`, or `callback(Result<Inc>, Call)`, receives the answer.
  // Of the waiting calls, the one with the highest priority goes first, and of these the oldest.
  // Above PoolOptions::max_queue the callback receives `overloaded`.  Values are moved in as for a
  // Remote.
  // Fails: std::logic_error after close().
  template <class F>
  Call submit(detail::Kept<Args>... arguments, F&& callback) {
    return this->call(CallOptions{}, std::forward<F>(callback), std::as_const(arguments)...);
  }
  template <class F>
  Call submit(const CallOptions& options, detail::Kept<Args>... arguments, F&& callback) {
    return this->call(options, std::forward<F>(callback), std::as_const(arguments)...);
  }
  template <class F, bool moved = detail::any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  Call submit(detail::Moved<Args>... arguments, F&& callback) {
    return this->call(CallOptions{}, std::forward<F>(callback), std::move(arguments)...);
  }
  template <class F, bool moved = detail::any_moved<Args...>, std::enable_if_t<moved, int> = 0>
  Call submit(const CallOptions& options, detail::Moved<Args>... arguments, F&& callback) {
    return this->call(options, std::forward<F>(callback), std::move(arguments)...);
  }
  // Reports the mistake if the number of arguments is wrong.
  template <class... Given, std::enable_if_t<detail::is_wrong_number<count + 1, Given...>, int> = 0>
  Call submit(const Given&...) {
    static_assert(
        sizeof...(Given) == count + 1,
        "evparallel: submit() takes the arguments of the function, as many as it has, and "
        "then the callback; CallOptions may be in front of them");
    return {};
  }
  // True if submit() would refuse a call.
  bool full() const { return core_->full(); }
  // Called after a refusal, when half of the limit is free again.
  void on_drain(Callback<void()> callback) { core_->set_on_drain(std::move(callback)); }

  // Each callback of on_ready(), on_replaced() and on_closed() is called once, from the loop.
  //
  // Called when max(1, min_workers) children are ready for calls, soon if they are.  The pool starts
  // children for it, also if min_workers is 0.  Gets the error if they cannot start (`unhealthy`,
  // `unknown_function`, that of the lost snapshot), and `cancelled` if the pool is closed, shut down
  // or dropped before.  Holds the loop until then.
  void on_ready(Callback<void(Result<void>)> callback) { core_->add_on_ready(std::move(callback)); }
  // Called after close() or shutdown(), when the last child has ended and all other callbacks were
  // called; soon if that is so.  Not called if the pool is dropped before.  Holds the loop from
  // close() or shutdown() on.
  void on_closed(Callback<void()> callback) { core_->add_on_closed(std::move(callback)); }
  // Called for each child: when it is forked, when it is ready, and when it has ended, after the
  // callbacks of its calls.
  void on_worker(Callback<void(const WorkerEvent&)> callback) {
    core_->set_on_worker(std::move(callback));
  }

  // Makes one call for each item: `on_result(index, Result<Inc>)`; at the end `on_done(const
  // MapSummary&)`.  Items are pulled from the loop as children can take them.  `range` is a range,
  // which is moved in or, as an lvalue, must live until on_done; or a function that returns
  // std::optional<Item>.  Items are converted as for a call: implicitly.
  template <class R, class OnResult, class OnDone,
            class = std::enable_if_t<!std::is_base_of_v<MapOptions, std::decay_t<OnDone>>>>
  MapHandle map(R&& range, OnResult&& on_result, OnDone&& on_done, MapOptions options = {}) {
    static_assert(count > 0, "evparallel: the function of a map must take an argument");
    static_assert(std::is_invocable_v<std::decay_t<OnDone>&, const MapSummary&>,
                  "evparallel: on_done of a map must be void(const MapSummary&)");
    if constexpr (!detail::is_generator<R>)
      if (!options.total) options.total = detail::size_of_range(range);
    detail::MapTask task;
    task.pull = detail::pull_from<R, Item>(std::forward<R>(range), codecs_);
    task.on_result = detail::item_result<Inc>(codecs_.get, std::forward<OnResult>(on_result));
    task.on_done = std::forward<OnDone>(on_done);
    task.may_wait = detail::pull_may_wait<R>();
    return MapHandle(core_->start_map(std::move(task), std::move(options)));
  }
  // The same without on_done.
  template <class R, class OnResult>
  MapHandle map(R&& range, OnResult&& on_result, MapOptions options = {}) {
    return map(
        std::forward<R>(range), std::forward<OnResult>(on_result), [](const MapSummary&) {},
        std::move(options));
  }

  // Folds the values as they come: `fold(T&, Inc)`, and at the end `on_done(T, const MapSummary&)`.
  // Items that fail are left out, and counted.
  template <class R, class T, class Fold, class OnDone>
  MapHandle reduce(R&& range, T init, Fold fold, OnDone on_done, MapOptions options = {}) {
    static_assert(std::is_invocable_v<Fold&, T&, Inc>,
                  "evparallel: the fold of a reduce must be void(T&, Inc)");
    static_assert(std::is_invocable_v<OnDone&, T, const MapSummary&>,
                  "evparallel: on_done of a reduce must be void(T, const MapSummary&)");
    auto value = std::make_shared<T>(std::move(init));
    return map(
        std::forward<R>(range),
        [value, fold = std::move(fold)](std::size_t, Result<Inc> result) mutable {
          if (result) fold(*value, *std::move(result));
        },
        [value, on_done = std::move(on_done)](const MapSummary& summary) mutable {
          on_done(std::move(*value), summary);
        },
        std::move(options));
  }

  // Maps items that the program pushes as they come: `on_result(index, Result<Inc>)` and
  // `on_done(const MapSummary&)` as for map().
  // Fails: std::logic_error after close().
  template <class OnResult, class OnDone,
            class = std::enable_if_t<!std::is_base_of_v<MapOptions, std::decay_t<OnDone>>>>
  [[nodiscard]] Stream<Args...> stream(OnResult&& on_result, OnDone&& on_done,
                                       MapOptions options = {}) {
    auto task = detail::stream_task<Inc>(codecs_.get, std::forward<OnResult>(on_result),
                                         std::forward<OnDone>(on_done));
    return Stream<Args...>(core_->start_stream(std::move(task), std::move(options)), codecs_);
  }
  // The same without on_done.
  template <class OnResult>
  [[nodiscard]] Stream<Args...> stream(OnResult&& on_result, MapOptions options = {}) {
    return stream(
        std::forward<OnResult>(on_result), [](const MapSummary&) {}, std::move(options));
  }

  // Makes one call for each item, and runs the loop until all are answered.  Returns the results in
  // the order of the items.  Items that got none, because stop_on_error or Reactor::stop() ended
  // the map, are `cancelled`; items that were never pulled are left out.
  // Fails: as wait(); what the range throws.
  template <class R>
  [[nodiscard]] std::vector<Result<Inc>> wait_map(R&& range, MapOptions options = {}) {
    return detail::wait_for_map<Inc>(core_->loop_runner(), options,
                                     [&](auto&& on_result, auto&& on_done, MapOptions&& all) {
                                       return map(std::forward<R>(range), std::move(on_result),
                                                  std::move(on_done), std::move(all));
                                     });
  }

  PoolStats stats() const { return core_ ? core_->stats() : PoolStats{}; }

  // As close(), but nothing more is begun: calls that no child runs fail with `cancelled`, the others
  // fail after `grace`, and the children end.
  void shutdown(std::chrono::milliseconds grace) { core_->shutdown(grace); }

  // Replaces the function of the pool, the options, or both, by and by: new children are ready
  // before old ones end, and no call is lost.  `f` has the type and the codecs of the old function;
  // the codecs are named as for pool().  Holds the loop until it is over; see on_replaced().
  //
  // First a single new child is started.  Until it is ready the pool goes on as before.  If its
  // start fails max_failed_starts times, the pool stays as it is.
  // Fails: std::logic_error after close(), for other codecs than those of the pool, and as pool();
  // Error{no_snapshot}.
  template <class IncIo = DefaultIo, class OutIo = DefaultIo, class F>
  void replace(F f, const std::optional<PoolOptions>& options = std::nullopt) {
    core_->replace(task_of<IncIo, OutIo>(f), options);
  }
  template <template <class> class IncIo, template <class> class OutIo = Io, class F>
  void replace(F f, const std::optional<PoolOptions>& options = std::nullopt) {
    replace<detail::TemplateIo<IncIo>, detail::TemplateIo<OutIo>>(std::move(f), options);
  }
  template <template <class> class IncIo, class OutIo, class F>
  void replace(F f, const std::optional<PoolOptions>& options = std::nullopt) {
    replace<detail::TemplateIo<IncIo>, OutIo>(std::move(f), options);
  }
  template <class IncIo, template <class> class OutIo, class F>
  void replace(F f, const std::optional<PoolOptions>& options = std::nullopt) {
    replace<IncIo, detail::TemplateIo<OutIo>>(std::move(f), options);
  }
  // The same function with other options; and a restart of all children.
  void replace(const PoolOptions& options) { core_->replace(std::nullopt, options); }
  void replace() { core_->replace(std::nullopt, std::nullopt); }
  // Called when the last replace() is over: all children that were there before have ended; soon if
  // that is so.  Gets the error if new children cannot start, and `cancelled` if replace() is called
  // again, or the pool is closed, shut down or dropped before.
  void on_replaced(Callback<void(Result<void>)> callback) {
    core_->add_on_replaced(std::move(callback));
  }

private:
  template <class IncIo, class OutIo, class F>
  detail::Task task_of(const F& f) const {
    using P = detail::PoolFunction<F, IncIo, OutIo>;
    static_assert(
        std::is_same_v<typename P::signature, Inc(Args...)>,
        "evparallel: the new function of a pool must have the arguments and the result of "
        "the old one");
    // A codec is known by its functions.  One that stands in two libraries of the program may have
    // two addresses: then the same codec is refused, but another one is never taken for it.
    if constexpr (std::is_same_v<typename P::signature, Inc(Args...)>)
      if (!(codecs_ == P::codecs()))
        throw std::logic_error(
            "evparallel: Pool::replace() must name the codecs that pool() has named for this pool: "
            "pool.replace<IncIo, OutIo>(f)");
    return P::task(f);
  }
};

// Makes f the function of a pool: f is Inc(Args...).  Children are forked when there is work.
// Codecs as in run().
// Fails: Error{no_snapshot}; std::logic_error for a callable that cannot be sent.
template <class IncIo = DefaultIo, class OutIo = DefaultIo, class F>
[[nodiscard]] auto pool(Reactor& reactor, F f, const PoolOptions& options = {}) {
  using P = detail::PoolFunction<F, IncIo, OutIo>;
  return Pool<typename P::signature>(detail::start_pool(reactor, P::task(f), options), P::codecs());
}

// The same with codecs that are templates, pool<RawIo, RawIo>(...), or one of them.
template <template <class> class IncIo, template <class> class OutIo = Io, class F>
[[nodiscard]] auto pool(Reactor& reactor, F f, const PoolOptions& options = {}) {
  return pool<detail::TemplateIo<IncIo>, detail::TemplateIo<OutIo>>(reactor, std::move(f), options);
}
template <template <class> class IncIo, class OutIo, class F>
[[nodiscard]] auto pool(Reactor& reactor, F f, const PoolOptions& options = {}) {
  return pool<detail::TemplateIo<IncIo>, OutIo>(reactor, std::move(f), options);
}
template <class IncIo, template <class> class OutIo, class F>
[[nodiscard]] auto pool(Reactor& reactor, F f, const PoolOptions& options = {}) {
  return pool<IncIo, detail::TemplateIo<OutIo>>(reactor, std::move(f), options);
}

}  // namespace evparallel
