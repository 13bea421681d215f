// asio.hpp - a Reactor inside of an io_context of Asio, and calls with completion tokens.
// Licence: see COPYING.  Manual: evparallel_loops(3).
//
// Needs Asio 1.22 or later, without Boost; evparallel.hpp does not include this file.
#pragma once

#include <evparallel/detail/begin_call.hpp>
#include <evparallel/reactor.hpp>

#include <asio/any_io_executor.hpp>
#include <asio/associated_allocator.hpp>
#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/cancellation_type.hpp>
#include <asio/dispatch.hpp>
#include <asio/error_code.hpp>
#include <asio/io_context.hpp>
#include <asio/execution/outstanding_work.hpp>
#include <asio/posix/basic_stream_descriptor.hpp>
#include <asio/prefer.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace evparallel {

// A Reactor of its own whose turns the executor makes.  If several threads run the context, the
// executor is a strand, and everything that uses the Reactor runs in that strand.
//
// It keeps io_context::run() from returning while it lives.  An exception that leaves a callback
// leaves io_context::run(), which may be called again.  Move-only; a callback may destroy it.  If the
// context ends first, it ends the Reactor; the AsioReactor may only be destroyed then.
template <class Executor = asio::any_io_executor>
class AsioReactor {
public:
  // Fails: std::system_error.
  explicit AsioReactor(const Executor& executor) : state_(std::make_shared<State>(executor)) {
    // Another executor may be, or may contain, a strand.
    constexpr bool has_one_thread = std::is_same_v<Executor, asio::io_context::executor_type>;
    if constexpr (!has_one_thread) state_->loop->bind_to_no_thread();
    wait(state_);
  }
  AsioReactor(AsioReactor&&) noexcept = default;
  AsioReactor& operator=(AsioReactor&& other) noexcept {
    AsioReactor(std::move(other)).state_.swap(state_);
    return *this;
  }
  // Destroys the Reactor, as ~Reactor() does.
  ~AsioReactor() {
    if (state_) state_->end();
  }

  Reactor& operator*() const noexcept { return *state_->loop; }
  Reactor* operator->() const noexcept { return state_->loop.get(); }

private:
  struct State {
    explicit State(const Executor& executor)
        : loop(std::make_unique<Reactor>()), descriptor(std::in_place, executor, loop->fd()) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() { end(); }

    // The number belongs to the Reactor, which closes it.
    void end() noexcept {
      const std::unique_ptr<Reactor> ended = std::move(loop);
      if (!ended) return;
      descriptor->release();
      descriptor.reset();
    }

    std::unique_ptr<Reactor> loop;
    std::optional<asio::posix::basic_stream_descriptor<Executor>> descriptor;
  };

  // The context destroys it, and does not call it, at its own end: callbacks of the Reactor that own
  // the Reactor itself, as a coroutine does that has it in a variable, would never be destroyed.
  class Turn {
  public:
    explicit Turn(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}
    Turn(Turn&&) noexcept = default;
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (const std::shared_ptr<State> state = std::move(state_)) state->end();
    }
    void operator()(const asio::error_code& error) {
      const std::shared_ptr<State> state = std::move(state_);
      if (!error && state->loop) turn(state);
    }

  private:
    std::shared_ptr<State> state_;
  };

  static void wait(const std::shared_ptr<State>& state) {
    auto& descriptor = *state->descriptor;
    descriptor.async_wait(descriptor.wait_read, Turn(state));
  }
  static void turn(const std::shared_ptr<State>& state) {
    try {
      state->loop->poll();
    } catch (...) {
      if (state->loop) wait(state);
      throw;
    }
    if (state->loop) wait(state);
  }

  std::shared_ptr<State> state_;
};

// auto loop = asio_reactor(context.get_executor());  run(*loop, f);
template <class Executor>
[[nodiscard]] AsioReactor<Executor> asio_reactor(const Executor& executor) {
  return AsioReactor<Executor>(executor);
}

namespace detail {

// The executor of a handler that names none: it calls at once, in the turn of the Reactor, so that
// an exception leaves that turn.  system_executor, which is Asio's own choice, would end the program.
class TurnExecutor {
public:
  template <class F>
  void execute(F&& f) const {
    std::decay_t<F> called(std::forward<F>(f));
    called();
  }
  friend constexpr bool operator==(const TurnExecutor&, const TurnExecutor&) noexcept {
    return true;
  }
  friend constexpr bool operator!=(const TurnExecutor&, const TurnExecutor&) noexcept {
    return false;
  }
};

// What a handler gets behind its std::exception_ptr.  Asio passes a value with an error, too.
template <class Inc>
struct HandlerAnswer {
  using type = std::conditional_t<std::is_default_constructible_v<Inc>, Inc, std::optional<Inc>>;
  using signature = void(std::exception_ptr, type);
};
template <>
struct HandlerAnswer<void> {
  using type = std::tuple<>;
  using signature = void(std::exception_ptr);
};

// A handler and its answer, for its executor, with its allocator.
template <class Handler, class Inc>
class AnsweredHandler {
  using Value = typename HandlerAnswer<Inc>::type;

public:
  using allocator_type = asio::associated_allocator_t<Handler>;

  AnsweredHandler(Handler&& handler, std::exception_ptr thrown, Value&& value)
      : handler_(std::move(handler)), thrown_(std::move(thrown)), value_(std::move(value)) {}
  allocator_type get_allocator() const noexcept { return asio::get_associated_allocator(handler_); }
  void operator()() {
    if constexpr (std::is_void_v<Inc>)
      std::move(handler_)(std::move(thrown_));
    else
      std::move(handler_)(std::move(thrown_), std::move(value_));
  }

private:
  Handler handler_;
  std::exception_ptr thrown_;
  Value value_;
};

// A handler that waits for its answer.  The callback of the call owns it.
template <class Handler, class Inc>
class WaitingHandler {
  using Value = typename HandlerAnswer<Inc>::type;
  using Executor = asio::associated_executor_t<Handler, TurnExecutor>;
  static auto tracked(const Executor& executor) {
    return asio::prefer(executor, asio::execution::outstanding_work.tracked);
  }

public:
  template <class H>
  explicit WaitingHandler(H&& handler)
      : handler_(std::forward<H>(handler)),
        executor_(tracked(asio::get_associated_executor(handler_, TurnExecutor()))) {}

  static std::shared_ptr<WaitingHandler> make(Handler&& handler) {
    const auto allocator = asio::get_associated_allocator(handler);
    return std::allocate_shared<WaitingHandler>(allocator, std::move(handler));
  }

  // Only in the loop, so that the handler never runs inside of the function that begins the call.
  static void answer(std::shared_ptr<WaitingHandler> waiting, Result<Inc>&& result) {
    if (!result) return fail(std::move(waiting), std::make_exception_ptr(result.error()));
    if constexpr (std::is_void_v<Inc>)
      complete(std::move(waiting), nullptr, Value());
    else
      complete(std::move(waiting), nullptr, Value(*std::move(result)));
  }
  static void fail(std::shared_ptr<WaitingHandler> waiting, std::exception_ptr thrown) {
    complete(std::move(waiting), std::move(thrown), Value());
  }

private:
  // Its memory is free again before the handler runs.
  static void complete(std::shared_ptr<WaitingHandler> waiting, std::exception_ptr thrown,
                       Value&& value) {
    AnsweredHandler<Handler, Inc> answered(std::move(waiting->handler_), std::move(thrown),
                                           std::move(value));
    const auto executor = std::move(waiting->executor_);
    waiting.reset();
    asio::dispatch(executor, std::move(answered));
  }

  Handler handler_;
  decltype(tracked(std::declval<Executor>())) executor_;
};

// In the cancellation slot of a handler, which may be emitted in another thread than that of the
// loop, and later than the answer.
class CancelInLoop {
public:
  CancelInLoop(LoopRunner& loop, const Call& call) : loop_(loop.weak()), call_(call) {}

  // A function of the child may have begun, so that its effects cannot be excluded.
  void operator()(asio::cancellation_type_t type) const {
    constexpr auto accepted = asio::cancellation_type::terminal | asio::cancellation_type::partial;
    if ((type & accepted) == asio::cancellation_type::none) return;
    if (const auto loop = loop_.lock()) loop->post([call = call_] { call.cancel(); });
  }

private:
  std::weak_ptr<LoopRunner> loop_;
  Call call_;
};

// Begins a call, with the handler that a completion token has made.
template <class Callee, class Inc, class... Args>
class CallInitiation {
public:
  CallInitiation(Callee& callee, const CallOptions& options, Args&&... arguments)
      : callee_(&callee), options_(options), arguments_(std::move(arguments)...) {}

  template <class H>
  void operator()(H&& handler) {
    using Waiting = WaitingHandler<std::decay_t<H>, Inc>;
    auto slot = asio::get_associated_cancellation_slot(handler);
    LoopRunner& loop = callee_->loop_runner();
    auto waiting = Waiting::make(std::decay_t<H>(std::forward<H>(handler)));
    Call call;
    try {
      call = begin_call(*callee_, options_, arguments_, [waiting](Result<Inc> result) mutable {
        Waiting::answer(std::move(waiting), std::move(result));
      });
    } catch (...) {
      // Nothing may leave: asio::use_awaitable would end the program.
      loop.post([waiting = std::move(waiting), thrown = std::current_exception()]() mutable {
        Waiting::fail(std::move(waiting), std::move(thrown));
      });
      return;
    }
    if (slot.is_connected()) slot.assign(CancelInLoop(loop, call));
  }

private:
  Callee* callee_;
  CallOptions options_;
  std::tuple<Args...> arguments_;
};

// Whether this completion token is a function that the handler of a call cannot be.
template <class Token, class Signature, class = void>
constexpr bool is_wrong_handler = false;
template <class Token, class... Values>
constexpr bool is_wrong_handler<
    Token, void(Values...),
    std::enable_if_t<std::is_same_v<
        typename asio::async_result<Token, void(Values...)>::completion_handler_type, Token>>> =
    !std::is_invocable_v<Token, Values...>;

// async_call() with the types of the function.
template <class Callee>
class TokenCall;
template <template <class> class Callee, class Inc, class... Args>
class TokenCall<Callee<Inc(Args...)>> {
  using Function = Callee<Inc(Args...)>;
  using Signature = typename HandlerAnswer<Inc>::signature;
  static constexpr std::size_t count = sizeof...(Args);

public:
  template <class... Given>
  static auto make(Function& f, Given&&... given) {
    constexpr bool is_right = !is_wrong_number<count + 1, std::decay_t<Given>...>;
    static_assert(is_right,
                  "evparallel: async_call() takes a remote function or a pool, its arguments, as "
                  "many as it has, and then a completion token; CallOptions may be in front of the "
                  "arguments");
    if constexpr (!is_right)
      return;
    else if constexpr (sizeof...(Given) == count + 1)
      return convert(f, CallOptions{}, std::forward<Given>(given)...);
    else
      return convert(f, std::forward<Given>(given)...);
  }

private:
  template <class... Given>
  static auto convert(Function& f, const CallOptions& options, Given&&... given) {
    constexpr bool is_right =
        are_convertible<std::tuple<Given&&...>>(std::make_index_sequence<count>());
    static_assert(is_right,
                  "evparallel: an argument of async_call() does not convert to that of the "
                  "function");
    if constexpr (is_right) return begin(f, options, std::forward<Given>(given)...);
  }
  template <class Given, std::size_t... at>
  static constexpr bool are_convertible(std::index_sequence<at...>) {
    return (std::is_convertible_v<std::tuple_element_t<at, Given>, Args> && ...);
  }
  template <class Token>
  static auto begin(Function& f, const CallOptions& options, Args... arguments, Token&& token) {
    constexpr bool is_right = !is_wrong_handler<std::decay_t<Token>, Signature>;
    static_assert(is_right,
                  "evparallel: the callback of async_call() must be void(std::exception_ptr, Inc), "
                  "or void(std::exception_ptr) if the function returns nothing");
    if constexpr (is_right)
      return asio::async_initiate<Token, Signature>(
          CallInitiation<Function, Inc, Args...>(f, options, std::move(arguments)...), token);
  }
};

}  // namespace detail

// A call of f, a Remote or a Pool, as an asynchronous operation of Asio: async_call(f, arguments...,
// token), or async_call(f, options, arguments..., token).  The token is asio::use_awaitable,
// asio::use_future, a callback, or another completion token; the signature of the completion is
// void(std::exception_ptr, Inc), without Inc if that is void, and with std::optional<Inc> if an Inc
// cannot be made without a value.  The exception is the Error of the call, or the std::logic_error of
// a wrong use of f.
//
// It is used where f is: in the thread or the strand of its Reactor, which may be any Reactor.  The
// arguments are converted and kept now.  The handler runs by its associated executor, or else in the
// turn of the Reactor; once, or never if the Reactor ends first, which destroys it.  Its cancellation
// slot cancels the call: terminal and partial.
template <template <class> class Callee, class Inc, class... Args, class... Given,
          std::enable_if_t<detail::is_callee<Callee<Inc(Args...)>>, int> = 0>
auto async_call(Callee<Inc(Args...)>& f, Given&&... given) {
  return detail::TokenCall<Callee<Inc(Args...)>>::make(f, std::forward<Given>(given)...);
}
// Reports the mistake if f is neither.
template <class Callee, class... Given, std::enable_if_t<!detail::is_callee<Callee>, int> = 0>
void async_call(const Callee&, const Given&...) {
  static_assert(detail::always_false<Callee>,
                "evparallel: async_call() takes a Remote or a Pool, as a variable, and then its "
                "arguments and a completion token");
}

}  // namespace evparallel
