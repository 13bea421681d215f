// asio.cpp - a Reactor inside of an io_context of Asio.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/asio.hpp>
#include <evparallel/evparallel.hpp>

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>

#include <atomic>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

using Context = asio::io_context;
using ContextReactor = par::AsioReactor<Context::executor_type>;

int plus_one(int x) {
  return x + 1;
}

// Fails the case if the context does not come to its end.
class Watchdog {
public:
  explicit Watchdog(Context& context) : timer_(context, testing::patience()) {
    timer_.async_wait([&](const asio::error_code& error) {
      if (error) return;
      testing::ran_out(__FILE__, __LINE__);
      context.stop();
    });
  }
  void cancel() { timer_.cancel(); }

private:
  asio::steady_timer timer_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(calls_are_answered_in_an_io_context) {
  Context context;
  Watchdog watchdog(context);
  std::optional<ContextReactor> loop = par::asio_reactor(context.get_executor());
  auto f = par::run(**loop, plus_one);
  auto pool = par::pool(**loop, plus_one);
  constexpr int many = 1000;
  long sum = 0;
  int answers = 0;
  const auto count = [&](par::Result<int> r) {
    sum += r.value();
    if (++answers < 2 * many) return;
    loop.reset();  // in its own callback
    watchdog.cancel();
  };
  for (int i = 0; i < many; ++i) {
    f(i, count);
    pool.submit(i, count);
  }
  context.run();
  BOOST_TEST(answers == 2 * many);
  BOOST_TEST(sum == long{many} * (many + 1));
}

BOOST_AUTO_TEST_CASE(timers_and_posts_of_both_take_turns_in_an_io_context) {
  Context context;
  Watchdog watchdog(context);
  auto loop = par::asio_reactor(context.get_executor());
  std::string order;
  const auto start = std::chrono::steady_clock::now();
  asio::steady_timer first(context, 1ms);
  const par::Timer second = loop->after(10ms, [&] { order += "b"; });
  asio::steady_timer third(context, 40ms);
  bool early = false;
  const par::Timer fourth = loop->after(60ms, [&] {
    order += "d";
    early = std::chrono::steady_clock::now() - start < 60ms;
    std::thread([&] { loop->post([&] { context.stop(); }); }).join();
  });
  first.async_wait([&](const asio::error_code&) { order += "a"; });
  third.async_wait([&](const asio::error_code&) { order += "c"; });
  context.run();
  for (const char expected : {'a', 'b', 'c', 'd'})
    BOOST_TEST(order.find(expected) != std::string::npos);
  BOOST_TEST(!early);
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_callback_leaves_the_run_of_an_io_context) {
  Context context;
  Watchdog watchdog(context);
  auto loop = par::asio_reactor(context.get_executor());
  bool reached = false;
  const par::Timer first = loop->after(0ns, [] { throw std::runtime_error("first"); });
  const par::Timer second = loop->after(0ns, [&] {
    reached = true;
    context.stop();
  });
  std::string text;
  try {
    context.run();
  } catch (const std::runtime_error& error) {
    text = error.what();
  }
  BOOST_TEST(text == "first");
  BOOST_TEST(!reached);
  context.run();
  BOOST_TEST(reached);
}

BOOST_AUTO_TEST_CASE(threads_run_an_io_context_with_a_reactor_in_a_strand) {
  Context context;
  Watchdog watchdog(context);
  const auto strand = asio::make_strand(context);
  auto loop = std::make_optional<par::AsioReactor<asio::strand<Context::executor_type>>>(strand);
  auto f = std::make_optional(par::run(**loop, plus_one));
  constexpr int many = 500;
  std::atomic<int> inside{0};
  bool together = false;
  int answers = 0;
  for (int i = 0; i < many; ++i)
    asio::post(context, [&, i] {  // any thread
      asio::post(strand, [&, i] {
        together = together || ++inside > 1;
        (*f)(i, [&, i](par::Result<int> r) {
          together = together || ++inside > 1;
          answers += r.value() == i + 1;
          --inside;
          if (answers < many) return;
          f.reset();
          loop.reset();
          watchdog.cancel();
        });
        --inside;
      });
    });
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { context.run(); });
  for (std::thread& thread : threads) thread.join();
  BOOST_TEST(answers == many);
  BOOST_TEST(!together);
}

BOOST_AUTO_TEST_CASE(an_idle_reactor_lets_an_io_context_sleep) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, plus_one);
  bool answered = false;
  f(1, [&](par::Result<int>) { answered = true; });
  BOOST_TEST(testing::wait_until([&] { return answered; }, [&] { context.run_one_for(1s); }));
  BOOST_TEST(testing::eventually([&] { return context.poll() == 0; }));
  BOOST_TEST(!context.stopped());  // it holds the context
}

BOOST_AUTO_TEST_CASE(
    a_reactor_of_an_io_context_may_be_moved_and_destroyed_and_closes_its_descriptors) {
  const std::size_t before = testing::count_descriptors();
  {
    Context context;
    static_cast<void>(par::asio_reactor(context.get_executor()));  // the context opens its own
    const std::size_t with_context = testing::count_descriptors();
    {
      auto first = par::asio_reactor(context.get_executor());
      auto second = par::asio_reactor(context.get_executor());
      bool called = false;
      second->post([&] { called = true; });
      first = std::move(second);
      auto moved = std::move(first);
      BOOST_TEST(testing::wait_until([&] { return called; }, [&] { context.run_one_for(1s); }));
    }
    BOOST_TEST(testing::count_descriptors() == with_context);
    context.run();  // returns: nothing holds it
  }
  BOOST_TEST(testing::count_descriptors() == before);
}
