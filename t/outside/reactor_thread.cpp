// reactor_thread.cpp - a Reactor in a thread of its own, and its handles in other threads.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace par = evparallel;
using testing::error_of;
using testing::has;
using testing::misuse_of;
using namespace std::chrono_literals;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

int twice(int x) {
  if (x < 0) throw std::runtime_error("below zero");
  return 2 * x;
}

double scaled(int x, double by) {
  return x * by;
}

// Returns when its call is cancelled.
int hang(int x) {
  while (!par::this_call::cancelled()) {}
  return x;
}

// The Error of a future, which must come.
template <class T>
std::optional<par::Error> error_in(std::future<T>& future, const char* file = __builtin_FILE(),
                                   int line = __builtin_LINE()) {
  if (future.wait_for(testing::patience()) != std::future_status::ready) {
    testing::ran_out(file, line);
    return std::nullopt;
  }
  return error_of([&] { static_cast<void>(future.get()); });
}

// The living threads of all ReactorThreads.
std::size_t threads() {
  std::size_t count = 0;
  for (const auto& thread : par::preflight().threads) count += thread.name == "ReactorThread";
  return count;
}

bool threads_are(std::size_t count) {
  return testing::eventually([&] { return threads() == count; });
}

// Until it is opened, a callback waits in it.
class Gate {
public:
  void open() { promise_.set_value(); }
  std::function<void()> callback() {
    return [future = future_] { future.wait(); };
  }

private:
  std::promise<void> promise_;
  std::shared_future<void> future_ = promise_.get_future().share();
};

}  // namespace

// ---- calls ----

BOOST_AUTO_TEST_CASE(a_call_gives_a_future_of_its_value) {
  const std::size_t before = threads();
  {
    par::ReactorThread background;
    auto f = background.run(scaled);
    std::future<double> r = f(1, 2.0);
    BOOST_TEST(r.get() == 2.0);
    auto nothing = background.run([](const std::string&) {});
    nothing("text").get();
    auto seven = background.run([] { return 7; });
    BOOST_TEST(seven().get() == 7);
    BOOST_TEST(f.pending() == 0u);
    BOOST_TEST(threads() == before + 1);
  }
  BOOST_TEST(threads_are(before));
}

BOOST_AUTO_TEST_CASE(the_future_throws_the_error_of_the_call) {
  par::ReactorThread background;
  auto f = background.run(twice);
  std::future<int> bad = f(-1);
  const auto error = error_in(bad);
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::remote_exception));
  BOOST_TEST(has(error->what(), "below zero"), error->what());
  BOOST_TEST(f(4).get() == 8);
}

BOOST_AUTO_TEST_CASE(a_crash_of_the_child_fails_its_call_and_the_next_one_has_another_child) {
  par::ReactorThread background;
  auto f = background.run([](int x) {
    if (x == 0) ::kill(::getpid(), SIGKILL);
    return x;
  });
  std::future<int> crashed = f(0);
  const auto error = error_in(crashed);
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::child_killed));
  BOOST_TEST(error->exit()->signal() == SIGKILL);
  BOOST_TEST(f(3).get() == 3);
}

BOOST_AUTO_TEST_CASE(arguments_belong_to_the_call_from_the_beginning) {
  par::ReactorThread background;
  auto size =
      background.run([](const std::string& text, int n) { return text + std::to_string(n); });
  Gate gate;
  background.post(gate.callback());
  std::future<std::string> copied;
  std::future<std::string> moved;
  std::future<std::string> converted;
  {
    std::string text(100'000, 'x');
    copied = size(text, 1);
    text[0] = 'y';
    moved = size(std::move(text), 2);
    char buffer[] = "abc";
    converted = size(buffer, 3);
    buffer[0] = 'z';
  }
  gate.open();
  BOOST_TEST(copied.get() == std::string(100'000, 'x') + "1");
  BOOST_TEST(moved.get() == "y" + std::string(99'999, 'x') + "2");
  BOOST_TEST(converted.get() == "abc3");
}

BOOST_AUTO_TEST_CASE(arguments_and_results_that_only_move_are_moved) {
  par::ReactorThread background;
  auto f = background.run([](par::Fd fd) { return par::Fd::dup(fd.get()); });
  const std::array<int, 2> ends = [] {
    std::array<int, 2> pair{};
    BOOST_REQUIRE(::pipe2(pair.data(), O_CLOEXEC) == 0);
    return pair;
  }();
  par::Fd back = f(par::Fd(ends[1])).get();
  BOOST_TEST(::write(back.get(), "a", 1) == 1);
  char c = 0;
  BOOST_TEST(::read(ends[0], &c, 1) == 1);
  BOOST_TEST(c == 'a');
  ::close(ends[0]);
}

BOOST_AUTO_TEST_CASE(codecs_can_be_named_as_for_run_and_pool) {
  par::ReactorThread background;
  auto raw = background.run<par::RawIo>(twice);
  auto both = background.run<par::RawIo, par::RawIo>(twice);
  auto pool = background.pool<par::RawIo, par::RawIo>(twice);
  BOOST_TEST(raw(1).get() + both(2).get() + pool.submit(3).get() == 12);
}

BOOST_AUTO_TEST_CASE(an_argument_that_its_codec_refuses_fails_the_call) {
  par::ReactorThread background;
  auto f = background.run([](const std::string& text) { return text.size(); });
  std::future<std::size_t> bad = f("\xff");
  const auto error = error_in(bad);
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::bad_message));
  BOOST_TEST((error->delivery() == par::Delivery::not_sent));
  BOOST_TEST(f("a").get() == 1u);
}

BOOST_AUTO_TEST_CASE(options_of_a_function_and_of_a_call_apply) {
  par::ReactorThread background;
  par::Options options;
  options.env["EVPARALLEL_COLOUR"] = "blue";
  auto colour =
      background.run([] { return std::string(std::getenv("EVPARALLEL_COLOUR")); }, options);
  BOOST_TEST(colour().get() == "blue");

  auto f = background.run(hang);
  par::CallOptions soon;
  soon.deadline = 5ms;
  std::future<int> late = f(soon, 1);
  const auto error = error_in(late);
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::deadline));
  soon.deadline = -1ms;
  BOOST_TEST(has(misuse_of([&] { f(soon, 1); }), "CallOptions::deadline"));
  BOOST_TEST(f.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(a_call_is_cancelled_through_its_future) {
  par::ReactorThread background;
  auto f = background.run(hang);
  par::CallFuture<int> hangs = f(1);
  par::CallFuture<int> waits = f(2);
  BOOST_TEST(waits.id() == hangs.id() + 1);
  waits.cancel();
  hangs.cancel();
  for (auto* future : {&hangs, &waits}) {
    const auto error = error_in(*future);
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::cancelled));
  }
  hangs.cancel();  // nothing is left to cancel
}

BOOST_AUTO_TEST_CASE(a_dropped_future_neither_blocks_nor_cancels) {
  par::ReactorThread background;
  auto f = background.run([](int x) {
    static int sum = 0;
    return sum += x;
  });
  Gate gate;
  background.post(gate.callback());
  for (int i = 0; i < 100; ++i) f(1);
  BOOST_TEST(f.pending() == 100u);
  gate.open();
  BOOST_TEST(f(0).get() == 100);
}

BOOST_AUTO_TEST_CASE(close_answers_the_calls_before_it_and_refuses_those_after_it) {
  par::ReactorThread background;
  auto f = background.run(twice);
  const auto copy = f;
  std::future<int> before = f(1);
  f.close();
  f.close();
  BOOST_TEST(has(misuse_of([&] { copy(2); }), "close()"));
  BOOST_TEST(before.get() == 2);
  const par::SharedRemote<int(int)> none;
  BOOST_TEST(!none);
  BOOST_TEST(none.pending() == 0u);
  BOOST_TEST(has(misuse_of([&] { none(2); }), "empty"));
}

BOOST_AUTO_TEST_CASE(errors_of_run_are_thrown_by_run) {
  const int status = testing::elsewhere([] {
    par::ReactorThread background;  // a copy of the program has no default snapshot
    const auto error = error_of([&] { static_cast<void>(background.run(twice)); });
    const auto of_pool = error_of([&] { static_cast<void>(background.pool(twice)); });
    if (!error || error->code() != par::Errc::no_snapshot) return 1;
    return of_pool && of_pool->code() == par::Errc::no_snapshot ? 0 : 2;
  });
  BOOST_TEST(status == 0);
  par::ReactorThread background;
  int local = 0;
  BOOST_TEST(has(
      misuse_of([&] { static_cast<void>(background.run([&local](int x) { return local + x; })); }),
      "local variable"));
  par::Options negative;
  negative.grace = -1ms;
  BOOST_TEST(has(misuse_of([&] { static_cast<void>(background.run(twice, negative)); }), "grace"));
}

// ---- many threads ----

BOOST_AUTO_TEST_CASE(many_threads_call_one_handle_at_once) {
  constexpr int callers = 4;
  constexpr int calls = 2000;
  par::ReactorThread background;
  auto f = background.run<par::RawIo, par::RawIo>([](int x) { return x + 1; });
  std::atomic<int> wrong{0};
  std::vector<std::thread> all;
  for (int t = 0; t < callers; ++t)
    all.emplace_back([&, mine = f] {
      std::vector<std::future<int>> answers;
      for (int i = 0; i < calls; ++i) answers.push_back((i % 2 == 0 ? f : mine)(i));
      for (int i = 0; i < calls; ++i)
        if (answers[static_cast<std::size_t>(i)].get() != i + 1) ++wrong;
    });
  for (std::thread& one : all) one.join();
  BOOST_TEST(wrong == 0);
  BOOST_TEST(f.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(threads_make_copy_and_drop_handles_at_once) {
  par::ReactorThread background;
  std::atomic<int> right{0};
  std::vector<std::thread> all;
  for (int t = 0; t < 4; ++t)
    all.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        auto f = background.run(twice);
        const auto copy = f;
        f = {};
        if (copy(i).get() == 2 * i) ++right;
        copy(i);  // its future and its handle are dropped with the call open
      }
    });
  for (std::thread& one : all) one.join();
  BOOST_TEST(right == 80);
}

BOOST_AUTO_TEST_CASE(the_last_copy_of_a_handle_ends_its_child_and_cancels_its_calls) {
  par::ReactorThread background;
  auto f = background.run([](int x) {
    if (x == 0) return ::getpid();
    return hang(x);
  });
  const pid_t child = f(0).get();
  std::future<int> open = f(1);
  auto copy = f;
  std::thread([first = std::move(f)]() mutable { first = {}; }).join();
  BOOST_TEST((open.wait_for(0ms) == std::future_status::timeout));
  std::thread([last = std::move(copy)] {}).join();
  const auto error = error_in(open);
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::cancelled));
  BOOST_TEST(has(error->what(), "dropped"), error->what());
  BOOST_TEST(testing::gone(child));
}

// ---- the loop of another Reactor ----

BOOST_AUTO_TEST_CASE(post_to_gives_the_result_in_the_loop_of_another_reactor) {
  par::ReactorThread background;
  auto f = background.run(twice);
  par::Reactor loop;
  const auto here = std::this_thread::get_id();
  std::vector<int> values;
  std::string failed;
  bool elsewhere = false;
  f.post_to(loop, 21, [&](par::Result<int> r) {
    elsewhere = elsewhere || std::this_thread::get_id() != here;
    values.push_back(r.value());
  });
  f.post_to(loop, -1, [&](const par::Result<int>& r) { failed = r.error().what(); });
  const par::SharedCall named =
      f.post_to(loop, par::CallOptions{}, 4,
                [&, own = std::make_unique<int>(1)](par::Result<int> r, par::Call call) {
                  values.push_back(r.value() + *own);
                  values.push_back(static_cast<int>(call.id()));
                });
  loop.run();  // returns after the last answer
  BOOST_TEST(values == (std::vector<int>{42, 9, 2}), boost::test_tools::per_element());
  BOOST_TEST(named.id() == 2u);
  BOOST_TEST(has(failed, "below zero"));
  BOOST_TEST(!elsewhere);
}

BOOST_AUTO_TEST_CASE(post_to_takes_arguments_that_are_moved_in_and_refuses_as_a_call) {
  par::ReactorThread background;
  par::Reactor loop;
  auto size = background.run([](const std::string& text) { return text.size(); });
  std::size_t sum = 0;
  const auto add = [&](par::Result<std::size_t> r) { sum += r.value(); };
  const std::string kept(10, 'x');
  size.post_to(loop, kept, add);
  size.post_to(loop, std::string(100'000, 'x'), add);
  size.post_to(loop, par::CallOptions{}, std::string(1'000'000, 'x'), add);
  bool refused = false;
  size.post_to(loop, "\xff", [&](par::Result<std::size_t> r) {
    refused = r.error().code() == par::Errc::bad_message;
  });
  loop.run();
  BOOST_TEST(sum == 1'100'010u);
  BOOST_TEST(refused);
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_posted_answer_leaves_its_own_loop) {
  par::ReactorThread background;
  par::Reactor loop;
  auto f = background.run(twice);
  f.post_to(loop, 1, [](par::Result<int>) { throw std::runtime_error("mine"); });
  BOOST_CHECK_EXCEPTION(loop.run(), std::runtime_error,
                        [](const auto& e) { return has(e.what(), "mine"); });
  BOOST_TEST(f(2).get() == 4);
}

BOOST_AUTO_TEST_CASE(a_call_that_was_posted_to_a_loop_is_cancelled_through_its_name) {
  par::ReactorThread background;
  par::Reactor loop;
  auto f = background.run(hang);
  std::optional<par::Errc> code;
  const par::SharedCall call =
      f.post_to(loop, 1, [&](par::Result<int> r) { code = r.error().code(); });
  call.cancel();
  loop.run();
  BOOST_TEST((code == par::Errc::cancelled));
  call.cancel();
}

BOOST_AUTO_TEST_CASE(a_callback_is_destroyed_in_the_thread_of_its_reactor_when_that_ends_first) {
  struct Noted {
    std::thread::id* in;
    std::unique_ptr<int> alive = std::make_unique<int>(1);
    ~Noted() {
      if (alive) *in = std::this_thread::get_id();
    }
    Noted(std::thread::id* where) : in(where) {}
    Noted(Noted&&) = default;
  };
  par::ReactorThread background;
  auto f = background.run([](int x) {
    while (x < 0 && !par::this_call::cancelled()) {}
    return x;
  });
  std::thread::id destroyed_in;
  bool called = false;
  par::SharedCall open;
  {
    par::Reactor loop;
    f.post_to(loop, 1, [&](par::Result<int>) { called = true; });  // answered, and not taken
    BOOST_TEST(f(2).get() == 2);
    open =
        f.post_to(loop, -1, [&, noted = Noted(&destroyed_in)](par::Result<int>) { called = true; });
  }
  BOOST_TEST((destroyed_in == std::this_thread::get_id()));
  open.cancel();
  BOOST_TEST(f(3).get() == 3);
  BOOST_TEST(!called);
}

BOOST_AUTO_TEST_CASE(reactors_end_while_their_answers_are_on_their_way) {
  par::ReactorThread background;
  auto f = background.run<par::RawIo, par::RawIo>(twice);
  int answers = 0;
  for (int round = 0; round < 50; ++round) {
    par::Reactor loop;
    for (int i = 0; i < 20; ++i) f.post_to(loop, i, [&](par::Result<int>) { ++answers; });
    loop.run_for(std::chrono::microseconds(100 * (round % 8)));
  }
  BOOST_TEST(f(1).get() == 2);
  BOOST_TEST(answers <= 1000);
}

BOOST_AUTO_TEST_CASE(many_threads_post_to_one_loop) {
  par::ReactorThread background;
  par::Reactor loop;
  auto pool = background.pool<par::RawIo, par::RawIo>(twice);
  const par::Hold hold = loop.hold();
  int answers = 0;
  long sum = 0;
  std::vector<std::thread> all;
  for (int t = 0; t < 4; ++t)
    all.emplace_back([&] {
      for (int i = 0; i < 500; ++i)
        pool.post_to(loop, i, [&](par::Result<int> r) {
          sum += r.value();
          if (++answers == 2000) loop.stop();
        });
    });
  loop.run();
  for (std::thread& one : all) one.join();
  BOOST_TEST(answers == 2000);
  BOOST_TEST(sum == 4 * 499L * 500);
}

// ---- a pool ----

BOOST_AUTO_TEST_CASE(a_pool_answers_calls_of_many_threads) {
  par::ReactorThread background;
  par::PoolOptions options;
  options.workers = 3;
  auto pool = background.pool(twice, options);
  std::atomic<int> right{0};
  std::vector<std::thread> all;
  for (int t = 0; t < 4; ++t)
    all.emplace_back([&, mine = pool] {
      for (int i = 0; i < 100; ++i) right += mine.submit(i).get() == 2 * i;
    });
  for (std::thread& one : all) one.join();
  BOOST_TEST(right == 400);
  std::future<int> bad = pool.submit(par::CallOptions{}, -1);
  BOOST_TEST((error_in(bad)->code() == par::Errc::remote_exception));
  const par::PoolStats stats = pool.invoke([](par::Pool<int(int)>& own) { return own.stats(); });
  BOOST_TEST(stats.done == 400u);
  BOOST_TEST(stats.failed == 1u);
  pool.invoke([](auto& own) { own.replace(+[](int x) { return 3 * x; }); });
  BOOST_TEST(testing::eventually([&] { return pool.submit(1).get() == 3; }));
}

BOOST_AUTO_TEST_CASE(a_map_gives_all_results_in_one_future) {
  par::ReactorThread background;
  auto pool = background.pool(twice);
  std::vector<int> items(1000);
  std::iota(items.begin(), items.end(), 0);
  auto mapped = pool.map(items);
  items.assign(items.size(), -1);  // it has a copy
  const auto results = mapped.get();
  BOOST_REQUIRE(results.size() == 1000u);
  bool right = true;
  for (std::size_t i = 0; i < results.size(); ++i)
    right = right && results[i].value() == static_cast<int>(2 * i);
  BOOST_TEST(right);

  const int few[] = {1, -1, 3};
  par::MapOptions stops;
  stops.stop_on_error = true;
  stops.chunk = 1;
  const auto up_to_error = pool.map(few, std::move(stops)).get();
  BOOST_REQUIRE(up_to_error.size() >= 2u);
  BOOST_TEST(up_to_error[0].value() == 2);
  BOOST_TEST((up_to_error[1].error().code() == par::Errc::remote_exception));

  auto generated =
      pool.map([n = 0]() mutable { return n < 5 ? std::optional<int>(n++) : std::nullopt; });
  BOOST_TEST(par::values(generated.get()) == (std::vector<int>{0, 2, 4, 6, 8}),
             boost::test_tools::per_element());
  BOOST_TEST(pool.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(the_future_of_a_map_throws_what_its_range_throws_and_that_it_was_cancelled) {
  par::ReactorThread background;
  auto pool = background.pool([](int x) { return x < 0 ? hang(x) : x; });
  auto thrown = pool.map([n = 0]() mutable -> std::optional<int> {
    if (n == 3) throw std::runtime_error("no more");
    return n++;
  });
  BOOST_CHECK_EXCEPTION(thrown.get(), std::runtime_error,
                        [](const auto& e) { return has(e.what(), "no more"); });
  auto cancelled = pool.map(std::vector<int>{-1, 1});
  cancelled.cancel();
  const auto error = error_in(cancelled);
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::cancelled));
  pool.close();
  BOOST_TEST(has(misuse_of([&] { pool.map(std::vector<int>{1}); }), "close()"));
}

// ---- the thread and its Reactor ----

BOOST_AUTO_TEST_CASE(callbacks_are_posted_into_the_thread_in_their_order) {
  par::ReactorThread background;
  std::vector<int> order;
  std::thread::id in;
  background.post([&] { order.push_back(1); });
  background.post([&, own = std::make_unique<int>(2)](par::Reactor& loop) {
    in = std::this_thread::get_id();
    order.push_back(*own);
    loop.after(0ns, [&] { order.push_back(4); }).detach();
    loop.post([&] { order.push_back(3); });
  });
  const std::size_t called = background.invoke([&](par::Reactor&) { return order.size(); });
  BOOST_TEST(called >= 2u);
  BOOST_TEST(testing::eventually(
      [&] { return background.invoke([&](par::Reactor&) { return order.size(); }) == 4u; }));
  BOOST_TEST((in != std::this_thread::get_id()));
  BOOST_TEST(order[0] == 1);
  BOOST_TEST(order[1] == 2);
}

BOOST_AUTO_TEST_CASE(invoke_gives_the_value_or_the_exception_and_works_in_the_thread_itself) {
  par::ReactorThread background;
  BOOST_CHECK_EXCEPTION(background.invoke([](par::Reactor&) { throw std::runtime_error("mine"); }),
                        std::runtime_error, [](const auto& e) { return has(e.what(), "mine"); });
  const int nested = background.invoke([&](par::Reactor&) {
    auto f = background.run(twice);  // in the thread
    static_cast<void>(f(1));
    return background.invoke([](par::Reactor&) { return 5; });
  });
  BOOST_TEST(nested == 5);
  auto f = background.run(twice);
  BOOST_TEST(testing::eventually(
      [&] { return f.invoke([](par::Remote<int(int)>& own) { return own.pid(); }) > 0; }));
}

BOOST_AUTO_TEST_CASE(the_whole_library_can_be_used_in_the_thread) {
  par::ReactorThread background;
  std::promise<std::string> heard;
  background.post([&](par::Reactor& loop) {
    auto talk = par::process(loop, [](par::Pipe<std::string, std::string> pipe) {
      pipe.on_message([pipe](const std::string& text) mutable {
        pipe.send(text + "!");
        pipe.close();
      });
    });
    talk.on_message([&](std::string text) { heard.set_value(std::move(text)); });
    talk.send("hello");
    talk.detach();
  });
  BOOST_TEST(heard.get_future().get() == "hello!");
}

BOOST_AUTO_TEST_CASE(reactor_stop_in_a_callback_does_not_end_the_thread) {
  par::ReactorThread background;
  background.post([](par::Reactor& loop) { loop.stop(); });
  auto f = background.run(twice);
  BOOST_TEST(f(1).get() == 2);
}

BOOST_AUTO_TEST_CASE(exceptions_of_callbacks_reach_on_exception_and_the_loop_goes_on) {
  par::ReactorThread background;
  std::vector<std::string> texts;
  background.on_exception([&](std::exception_ptr exception) {
    try {
      std::rethrow_exception(exception);
    } catch (const std::exception& error) {
      texts.push_back(error.what());
    }
  });
  background.post([] { throw std::runtime_error("first"); });
  background.post([] { throw std::runtime_error("second"); });
  auto f = background.run(twice);
  BOOST_TEST(f(1).get() == 2);
  background.stop();
  BOOST_TEST(texts == (std::vector<std::string>{"first", "second"}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(without_on_exception_an_exception_of_a_callback_ends_the_program) {
  const int status = testing::elsewhere([] {
    std::set_terminate([] { ::_exit(7); });
    par::ReactorThread background;
    background.post([] { throw std::runtime_error("lost"); });
    background.invoke([](par::Reactor&) {});
    return 0;
  });
  BOOST_TEST(status == 7);
}

BOOST_AUTO_TEST_CASE(the_thread_blocks_all_signals_but_those_of_faults) {
  par::ReactorThread background;
  const auto blocked = background.invoke([](par::Reactor&) {
    sigset_t set;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &set);
    std::vector<int> none;
    for (int signum = 1; signum < 32; ++signum)
      if (signum != SIGKILL && signum != SIGSTOP && sigismember(&set, signum) == 0)
        none.push_back(signum);
    return none;
  });
  std::vector<int> faults{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
  std::sort(faults.begin(), faults.end());
  BOOST_TEST(blocked == faults, boost::test_tools::per_element());
  sigset_t here;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &here);
  BOOST_TEST(sigismember(&here, SIGTERM) == 0);
}

// ---- the end ----

BOOST_AUTO_TEST_CASE(the_end_cancels_open_calls_and_maps_and_says_why) {
  std::future<int> hangs;
  std::future<int> waits;
  std::future<int> never_begun;
  std::future<int> of_pool;
  std::future<std::vector<par::Result<int>>> mapped;
  par::Reactor loop;
  std::string posted;
  par::SharedRemote<int(int)> f;
  par::SharedPool<int(int)> pool;
  {
    par::ReactorThread background;
    f = background.run(hang);
    pool = background.pool(hang);
    hangs = f(1);
    waits = f(2);
    of_pool = pool.submit(3);
    mapped = pool.map(std::vector<int>{4, 5});
    f.post_to(loop, 6, [&](par::Result<int> r) { posted = r.error().what(); });
    background.post([&] {
      background.stop();
      never_begun = f(7);  // behind the end, which is in the order of the posts
    });
  }
  for (auto* future : {&hangs, &waits, &never_begun, &of_pool}) {
    BOOST_TEST((future->wait_for(0s) == std::future_status::ready));
    const auto error = error_in(*future);
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::cancelled));
    BOOST_TEST(has(error->what(), "the ReactorThread has ended"), error->what());
    BOOST_TEST((future != &never_begun || error->delivery() == par::Delivery::not_sent));
  }
  const auto error = error_in(mapped);
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST(has(error->what(), "the ReactorThread has ended"), error->what());
  loop.run();
  BOOST_TEST(has(posted, "the ReactorThread has ended"), posted);
  BOOST_TEST(f.pending() + pool.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(handles_that_outlive_their_thread_give_cancelled) {
  par::SharedRemote<int(int)> f;
  par::SharedPool<int(int)> pool;
  par::CallFuture<int> done;
  {
    par::ReactorThread background;
    f = background.run(twice);
    pool = background.pool(twice);
    done = f(1);
    BOOST_TEST(done.get() == 2);
  }
  std::future<int> late = f(1);
  std::future<int> of_pool = pool.submit(1);
  std::future<std::vector<par::Result<int>>> mapped = pool.map(std::vector<int>{1});
  par::Reactor loop;
  std::string posted;
  f.post_to(loop, 1, [&](par::Result<int> r) { posted = r.error().what(); });
  loop.run();
  for (auto* future : {&late, &of_pool}) {
    const auto error = error_in(*future);
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::cancelled));
    BOOST_TEST((error->delivery() == par::Delivery::not_sent));
    BOOST_TEST(has(error->what(), "has ended"), error->what());
  }
  BOOST_TEST((error_in(mapped)->code() == par::Errc::cancelled));
  BOOST_TEST(has(posted, "has ended"), posted);
  BOOST_TEST(error_of([&] { pool.invoke([](auto&) {}); }).has_value());
  done.cancel();
  pool.close();
}

BOOST_AUTO_TEST_CASE(stop_calls_the_callbacks_before_it_and_may_be_called_again) {
  par::ReactorThread background;
  auto f = background.run(twice);
  int called = 0;
  Gate gate;
  background.post(gate.callback());
  for (int i = 0; i < 10; ++i) background.post([&] { ++called; });
  gate.open();
  background.stop();
  BOOST_TEST(called == 10);
  background.stop();
  const auto error = error_of([&] { background.post([] {}); });
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::cancelled));
  BOOST_TEST(error_of([&] { static_cast<void>(background.run(twice)); }).has_value());
  BOOST_TEST(error_of([&] { background.invoke([](par::Reactor&) {}); }).has_value());
}

BOOST_AUTO_TEST_CASE(a_callback_of_the_thread_may_destroy_it) {
  const std::size_t before = threads();
  auto background = std::make_shared<par::ReactorThread>();
  auto f = background->run(twice);
  BOOST_TEST(f(1).get() == 2);
  auto& thread = *background;
  thread.post([last = std::move(background)]() mutable { last.reset(); });
  BOOST_TEST(threads_are(before));
  std::future<int> late = f(1);
  BOOST_TEST((error_in(late)->code() == par::Errc::cancelled));
}

BOOST_AUTO_TEST_CASE(threads_call_while_it_ends) {
  for (int round = 0; round < 10; ++round) {
    auto background = std::make_unique<par::ReactorThread>();
    auto f = background->run<par::RawIo, par::RawIo>(twice);
    std::atomic<int> began{0};
    std::atomic<int> wrong{0};
    std::vector<std::thread> all;
    for (int t = 0; t < 3; ++t)
      all.emplace_back([&, mine = f] {
        for (bool ended = false; !ended; ++began) {
          auto answer = mine(1);
          try {
            if (answer.get() != 2) ++wrong;
          } catch (const par::Error& error) {
            ended = true;
            if (error.code() != par::Errc::cancelled) ++wrong;
          }
        }
      });
    f = {};
    BOOST_TEST(testing::eventually([&] { return began > 20; }));
    background.reset();
    for (std::thread& one : all) one.join();
    BOOST_TEST(wrong == 0);
  }
}

BOOST_AUTO_TEST_CASE(it_leaves_no_thread_and_no_descriptor) {
  const std::size_t before = threads();
  const auto round = [] {
    par::ReactorThread background;
    auto f = background.run(twice);
    BOOST_TEST(f(1).get() == 2);
  };
  round();
  const std::size_t descriptors = testing::count_descriptors();
  for (int i = 0; i < 20; ++i) round();
  BOOST_TEST(threads_are(before));
  BOOST_TEST(testing::count_descriptors() == descriptors);
}

// ---- forks ----

namespace {

// The result of `f` in a forked copy of the program.  It does not look for leaks there: the thread is missing, and with
// it the stack that alone refers to what it was working with.
template <class F>
int without_its_thread(F f) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    int status = 99;
    try {
      status = f();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "# a copy: %s\n", error.what());
    }
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_copy_of_the_program_has_no_such_thread_and_ends_without_it) {
  par::Reactor loop;
  auto background = std::make_unique<par::ReactorThread>();
  auto f = background->run(twice);
  auto pool = background->pool(twice);
  par::CallFuture<int> open = f(1);
  const int status = without_its_thread([&] {
    if (!has(misuse_of([&] { f(1); }), "another process")) return 1;
    if (!has(misuse_of([&] { pool.submit(1); }), "another process")) return 2;
    if (!has(misuse_of([&] { f.post_to(loop, 1, [](par::Result<int>) {}); }), "another process"))
      return 3;
    if (!has(misuse_of([&] { static_cast<void>(background->run(twice)); }), "another process"))
      return 4;
    if (!has(misuse_of([&] { background->post([] {}); }), "another process")) return 5;
    if (!has(misuse_of([&] { background->invoke([](par::Reactor&) {}); }), "another process"))
      return 6;
    open.cancel();
    f = {};
    pool = {};
    background->stop();
    background.reset();
    return 0;
  });
  BOOST_TEST(status == 0);
  BOOST_TEST(open.get() == 2);
  BOOST_TEST(f(3).get() == 6);
}

BOOST_AUTO_TEST_CASE(copies_of_the_program_end_while_threads_call) {
  par::ReactorThread background;
  auto f = background.run<par::RawIo, par::RawIo>(twice);
  std::atomic<bool> over{false};
  std::vector<std::thread> all;
  for (int t = 0; t < 2; ++t)
    all.emplace_back([&, mine = f] {
      while (!over) mine(1).wait();
    });
  int bad = 0;
  for (int i = 0; i < 20; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      f = {};
      background.stop();
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    bad += status != 0;
  }
  over = true;
  for (std::thread& one : all) one.join();
  BOOST_TEST(bad == 0);
}

BOOST_AUTO_TEST_CASE(exit_ends_a_program_and_its_copy_while_the_thread_lives) {
  const int status = testing::elsewhere([] {
    par::SnapshotOptions options;
    options.name = "own";
    const par::Snapshot snapshot(options);
    static std::unique_ptr<par::ReactorThread> background;
    background = std::make_unique<par::ReactorThread>();
    static par::SharedRemote<int(int)> f;
    par::Options in;
    in.snapshot = const_cast<par::Snapshot*>(&snapshot);
    f = background->run(hang, in);
    f(1);
    const pid_t pid = ::fork();
    if (pid == 0) {
      std::atexit([] { ::_exit(8); });  // before the exit handlers of the test program
      std::exit(1);
    }
    int copy = 0;
    ::waitpid(pid, &copy, 0);
    if (!WIFEXITED(copy) || WEXITSTATUS(copy) != 8) return 2;
    background.reset();
    return 0;
  });
  BOOST_TEST(status == 0);
}

// ---- before and around it ----

BOOST_AUTO_TEST_CASE(a_snapshot_is_refused_while_it_lives_and_a_report_names_its_thread) {
  par::ReactorThread background;
  const auto error = error_of([] { const par::Snapshot late; });
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::refused));
  BOOST_TEST(has(error->what(), "the program has a Reactor"), error->what());
  BOOST_TEST(has(par::preflight().describe(), "(ReactorThread)"));
}

BOOST_AUTO_TEST_CASE(in_a_child_it_is_refused) {
  par::ReactorThread background;
  auto f = background.run([] { return misuse_of([] { const par::ReactorThread inner; }); });
  BOOST_TEST(has(f().get(), "this_reactor()"));
}

BOOST_AUTO_TEST_CASE(two_of_them_post_to_each_other) {
  par::ReactorThread first;
  par::ReactorThread second;
  auto f = first.run(twice);
  std::promise<int> answer;
  second.invoke([&](par::Reactor& loop) {
    f.post_to(loop, 5, [&](par::Result<int> r) { answer.set_value(r.value()); });
  });
  BOOST_TEST(answer.get_future().get() == 10);
}
