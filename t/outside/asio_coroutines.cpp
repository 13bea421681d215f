// asio_coroutines.cpp - coroutines of Asio that await calls: values and errors, cancellation, destruction, strands.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <asio/detail/config.hpp>

void testing_main_init() {
  testing::take_default_snapshot();
}

#if defined ASIO_HAS_CO_AWAIT

#include <evparallel/asio.hpp>

#include <asio/awaitable.hpp>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/experimental/as_tuple.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/use_future.hpp>

#include <atomic>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;
using namespace asio::experimental::awaitable_operators;

namespace {

using Context = asio::io_context;

int plus_one(int x) {
  return x + 1;
}

int refuse(int) {
  throw std::runtime_error("no");
}

// Never answers; its child ends with its parent's end.
void never(int, par::Reply<int> reply) {
  static std::vector<par::Reply<int>> kept;
  kept.push_back(std::move(reply));
}

std::string join(const std::string& one, const std::string& other) {
  return one + other;
}

// Turns the context until `done()`.
template <class F>
bool run_until(Context& context, F done) {
  return testing::wait_until(done, [&] { context.run_one_for(1s); });
}

// Begins a coroutine; an exception that leaves it is thrown by ended().
class Spawned {
public:
  template <class F>
  Spawned(Context& context, F coroutine)
      : context_(context),
        answer_(asio::co_spawn(context, std::move(coroutine), asio::use_future)) {}
  void ended() {
    BOOST_TEST(
        run_until(context_, [&] { return answer_.wait_for(0s) != std::future_status::timeout; }));
    answer_.get();
  }

private:
  Context& context_;
  std::future<void> answer_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_coroutine_of_asio_gets_the_value_of_a_call) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, plus_one);
  auto texts = par::pool(*loop, join);
  auto none = par::run(*loop, [](int) {});
  int sum = 0;
  std::string text;
  Spawned(context, [&]() -> asio::awaitable<void> {
    sum = co_await par::async_call(f, 1, asio::use_awaitable);
    par::CallOptions options;
    options.deadline = 1min;
    sum += co_await par::async_call(f, options, 10, asio::use_awaitable);
    text = co_await par::async_call(texts, "a", std::string("b"), asio::use_awaitable);
    co_await par::async_call(none, 1, asio::use_awaitable);
  }).ended();
  BOOST_TEST(sum == 13);
  BOOST_TEST(text == "ab");
}

BOOST_AUTO_TEST_CASE(a_coroutine_of_asio_gets_the_error_of_a_call_thrown) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, refuse);
  auto closed = par::run(*loop, plus_one);
  closed.close();
  std::string said;
  Spawned(context, [&]() -> asio::awaitable<void> {
    try {
      co_await par::async_call(f, 1, asio::use_awaitable);
    } catch (const par::Error& error) {
      said = par::to_string(error.code());
    }
    try {
      co_await par::async_call(closed, 1, asio::use_awaitable);
    } catch (const std::logic_error&) {
      said += " logic_error";
    }
    const auto [thrown, value] =
        co_await par::async_call(f, 1, asio::experimental::as_tuple(asio::use_awaitable));
    said += thrown ? " thrown" : "";
  }).ended();
  Spawned last(context, [&]() -> asio::awaitable<void> {
    co_await par::async_call(f, 1, asio::use_awaitable);
  });
  BOOST_CHECK_THROW(last.ended(), par::Error);
  BOOST_TEST(said == "remote_exception logic_error thrown");
}

BOOST_AUTO_TEST_CASE(ten_thousand_calls_of_coroutines_are_answered) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, plus_one);
  auto pool = par::pool(*loop, plus_one);
  constexpr int coroutines = 100;
  constexpr int calls = 50;
  int ended = 0;
  long sum = 0;
  for (int n = 0; n < coroutines; ++n)
    asio::co_spawn(
        context,
        [&, n]() -> asio::awaitable<void> {
          for (int i = 0; i < calls; ++i) {
            sum += co_await par::async_call(f, n, asio::use_awaitable);
            sum += co_await par::async_call(pool, i, asio::use_awaitable);
          }
          ++ended;
        },
        asio::detached);
  BOOST_TEST(run_until(context, [&] { return ended == coroutines; }));
  BOOST_TEST(sum == long{coroutines} * calls * (coroutines + 1) / 2 +
                        long{coroutines} * calls * (calls + 1) / 2);
}

BOOST_AUTO_TEST_CASE(the_cancellation_of_a_coroutine_cancels_its_call) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, never);
  asio::cancellation_signal signal;
  std::string said;
  bool ended = false;
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        try {
          co_await par::async_call(f, 1, asio::use_awaitable);
        } catch (const par::Error& error) {
          said = par::to_string(error.code());
        }
      },
      asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr) { ended = true; }));
  BOOST_TEST(run_until(context, [&] { return f.pending() == 1; }));
  signal.emit(asio::cancellation_type::terminal);
  BOOST_TEST(run_until(context, [&] { return ended; }));
  BOOST_TEST(said == "cancelled");
}

BOOST_AUTO_TEST_CASE(a_timer_beside_a_call_ends_it) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, never);
  auto quick = par::run(*loop, plus_one);
  std::size_t first = 2;
  std::size_t second = 2;
  Spawned(context, [&]() -> asio::awaitable<void> {
    asio::steady_timer timer(context, 1ms);
    first = (co_await(par::async_call(f, 1, asio::use_awaitable) ||
                      timer.async_wait(asio::use_awaitable)))
                .index();
    timer.expires_after(1h);
    second = (co_await(par::async_call(quick, 1, asio::use_awaitable) ||
                       timer.async_wait(asio::use_awaitable)))
                 .index();
  }).ended();
  BOOST_TEST(first == 1u);
  BOOST_TEST(second == 0u);
  BOOST_TEST(f.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(coroutines_that_wait_for_a_call_are_destroyed_with_reactor_or_context) {
  for (const bool context_first : {false, true}) {
    auto owned = std::make_shared<int>(0);
    const std::weak_ptr<int> left = owned;
    auto context = std::make_unique<Context>();
    auto loop = std::make_optional(par::asio_reactor(context->get_executor()));
    auto f = par::run(**loop, never);
    bool waits = false;
    const auto wait = [&, owned]() -> asio::awaitable<void> {
      const auto token = owned;
      waits = true;
      co_await par::async_call(f, 1, asio::use_awaitable);
    };
    asio::co_spawn(*context, wait, asio::detached);
    owned.reset();
    BOOST_TEST(run_until(*context, [&] { return waits && f.pending() == 1; }));
    if (!context_first) loop.reset();
    context.reset();
    BOOST_TEST(left.use_count() == 1);  // that of `wait`
  }
}

BOOST_AUTO_TEST_CASE(a_coroutine_that_owns_its_reactor_is_destroyed_with_the_context) {
  auto owned = std::make_shared<int>(0);
  const std::weak_ptr<int> left = owned;
  bool waits = false;
  {
    Context context;
    asio::co_spawn(
        context,
        [&waits, owned = std::move(owned)]() -> asio::awaitable<void> {
          auto loop = par::asio_reactor(co_await asio::this_coro::executor);
          auto f = par::run(*loop, never);
          waits = true;
          co_await par::async_call(f, 1, asio::use_awaitable);
        },
        asio::detached);
    BOOST_TEST(run_until(context, [&] { return waits; }));
    context.poll();
    BOOST_TEST(!left.expired());
  }
  BOOST_TEST(left.expired());
}

BOOST_AUTO_TEST_CASE(coroutines_in_strands_of_their_own_call_in_that_of_the_reactor) {
  Context context;
  auto strand = asio::make_strand(context);
  auto loop = std::make_optional(par::asio_reactor(strand));
  auto pool = std::make_optional(par::pool(**loop, plus_one));
  constexpr int coroutines = 20;
  constexpr int calls = 20;
  std::atomic<int> left{coroutines};
  std::atomic<long> sum{0};
  std::atomic<bool> elsewhere{false};
  const auto ask = [&](int x) -> asio::awaitable<int> {
    if (!strand.running_in_this_thread()) elsewhere = true;
    co_return co_await par::async_call(*pool, x, asio::use_awaitable);
  };
  for (int n = 0; n < coroutines; ++n) {
    auto own = asio::make_strand(context);
    asio::co_spawn(
        own,
        [&, own]() -> asio::awaitable<void> {
          for (int i = 0; i < calls; ++i) {
            sum += co_await asio::co_spawn(strand, ask(i), asio::use_awaitable);
            if (!own.running_in_this_thread()) elsewhere = true;
          }
          if (--left > 0) co_return;
          co_await asio::co_spawn(
              strand,
              [&]() -> asio::awaitable<void> {
                pool.reset();
                loop.reset();
                co_return;
              },
              asio::use_awaitable);
        },
        asio::detached);
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([&] { context.run(); });
  for (std::thread& thread : threads) thread.join();
  BOOST_TEST(left == 0);
  BOOST_TEST(sum == long{coroutines} * calls * (calls + 1) / 2);
  BOOST_TEST(!elsewhere);
}

#endif
