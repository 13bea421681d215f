// coroutines.cpp - coroutines on both sides: tasks that await calls, pauses, other tasks and pipes; their cancellation
// and their destruction.
#include "calling.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <sys/mman.h>

#include <atomic>
#include <new>

namespace {

// Shared with the children: how many messages one of them has written.
std::atomic<int>* written;

}  // namespace

void testing_main_init() {
  void* const shared =
      ::mmap(nullptr, sizeof *written, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  written = new (shared) std::atomic<int>(0);
  testing::take_default_snapshot();
}

#if defined __cpp_impl_coroutine || defined __cpp_coroutines

#include <evparallel/coroutine.hpp>

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

namespace {

// Its codec refuses odd numbers, when it reads.
struct Even {
  int x;
};

}  // namespace

template <>
struct par::Io<Even> {
  static void put(par::Writer& out, const Even& even) { out.write(&even.x, sizeof even.x); }
  static Even get(par::Reader& in) {
    Even even{};
    in.read(&even.x, sizeof even.x);
    if (even.x % 2 != 0) throw std::invalid_argument("odd");
    return even;
  }
};

namespace {

int square(int x) {
  return x * x;
}

int refuse(int) {
  throw std::runtime_error("no");
}

// Never answers; its child ends with its parent's end.
void never(int, par::Reply<int> reply) {
  static std::vector<par::Reply<int>> kept;
  kept.push_back(std::move(reply));
}

// Counts the living copies of itself, as a local variable of a task.
class Counted {
public:
  explicit Counted(int& living) : living_(&living) { ++*living_; }
  Counted(const Counted& other) : living_(other.living_) { ++*living_; }
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --*living_; }

private:
  int* living_;
};

par::Task<int> value(int x) {
  co_return x;
}

template <class Awaited>
par::Task<par::Errc> code_at(Awaited awaited, int& living) {
  const Counted counted(living);
  try {
    co_await std::move(awaited);
  } catch (const par::Error& error) {
    co_return error.code();
  }
  co_return par::Errc{};
}

// Suspended at `awaited`: a cancelled task gets the error there; a dropped one is destroyed.
template <class Make>
void check_ends(par::Reactor& loop, Make make) {
  int living = 0;
  auto running = par::start(loop, code_at(make(), living));
  BOOST_TEST(!running.done());
  BOOST_TEST(living == 1);
  running.cancel();
  BOOST_TEST(running.done());
  BOOST_TEST(living == 0);
  BOOST_TEST((running.take() == par::Errc::cancelled));
  {
    const auto dropped = par::start(loop, code_at(make(), living));
    BOOST_TEST(living == 1);
  }
  BOOST_TEST(living == 0);
  {
    const auto not_begun = code_at(make(), living);
    BOOST_TEST(living == 0);
  }
  // In a task that awaits it, and two of these at once.
  auto outer = [](par::Task<par::Errc> first, par::Task<par::Errc> second) -> par::Task<void> {
    co_await par::when_all(std::move(first), std::move(second));
  };
  {
    const auto nested =
        par::start(loop, outer(code_at(make(), living), code_at(par::sleep(loop, 1h), living)));
    BOOST_TEST(living == 2);
  }
  BOOST_TEST(living == 0);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_task_awaits_calls_and_wait_returns_its_answer) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  auto p = par::pool(loop, square);
  const auto task = [](auto& one, auto& other) -> par::Task<int> {
    const int a = co_await par::call(one, 3);
    const par::Result<int> b = co_await par::call_result(other, 4);
    co_return a + b.value() + co_await par::call(one, par::CallOptions{}, 1);
  };
  BOOST_TEST(par::wait(loop, task(f, p)) == 26);
  BOOST_TEST(par::wait(loop, par::call(f, 5)) == 25);
}

BOOST_AUTO_TEST_CASE(a_call_keeps_its_converted_arguments) {
  par::Reactor loop;
  auto f = par::run(
      loop, [](const std::string& a, std::vector<int> b) { return a + std::to_string(b.at(0)); });
  const auto task = [](auto& g) -> par::Task<std::string> {
    std::string text = "a";
    auto awaited = par::call(g, text.c_str(), {7});
    text = "changed";
    co_return co_await std::move(awaited);
  };
  BOOST_TEST(par::wait(loop, task(f)) == "a7");
}

BOOST_AUTO_TEST_CASE(the_error_of_a_call_is_thrown_or_is_in_its_result) {
  par::Reactor loop;
  auto f = par::run(loop, refuse);
  const auto thrown = [](auto& g) -> par::Task<int> { co_return co_await par::call(g, 1); };
  BOOST_CHECK_EXCEPTION(par::wait(loop, thrown(f)), par::Error, [](const par::Error& e) {
    return e.code() == par::Errc::remote_exception;
  });
  const par::Result<int> result = par::wait(loop, par::call_result(f, 1));
  BOOST_TEST((result.error().code() == par::Errc::remote_exception));
  f.close();
  BOOST_CHECK_THROW(par::wait(loop, thrown(f)), std::logic_error);
}

BOOST_AUTO_TEST_CASE(the_options_of_a_call_are_those_of_an_awaited_one) {
  par::Reactor loop;
  auto f = par::run(loop, never);
  par::CallOptions options;
  options.deadline = 1ms;
  const par::Result<int> result = par::wait(loop, par::call_result(f, options, 1));
  BOOST_TEST((result.error().code() == par::Errc::deadline));
}

BOOST_AUTO_TEST_CASE(an_exception_passes_through_nested_tasks) {
  par::Reactor loop;
  int living = 0;
  const auto inner = [](par::Reactor& on, int& count) -> par::Task<int> {
    const Counted counted(count);
    co_await par::sleep(on, 1ms);
    throw std::out_of_range("inner");
  };
  const auto outer = [&](par::Reactor& on, int& count) -> par::Task<int> {
    const Counted counted(count);
    co_return co_await inner(on, count) + 1;
  };
  BOOST_CHECK_THROW(par::wait(loop, outer(loop, living)), std::out_of_range);
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(ten_thousand_awaited_calls_and_tasks_in_sequence_need_no_stack) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  const auto nested = [](auto& g, int i) -> par::Task<int> { co_return co_await par::call(g, i); };
  const auto task = [&](auto& g) -> par::Task<long> {
    long sum = 0;
    std::ptrdiff_t most = 0;
    char* first = nullptr;
    for (int i = 0; i < 10000; ++i) {
      sum += co_await nested(g, i % 10);
      sum += co_await value(1);
      char* const now = static_cast<char*>(__builtin_frame_address(0));
      if (i == 10) first = now;
      if (i > 10) most = std::max(most, std::abs(first - now));
    }
    BOOST_TEST(most < 65536);
    co_return sum;
  };
  BOOST_TEST(par::wait(loop, task(f)) == 10000 / 10 * 285 + 10000);
  // Tasks that never wait.
  const auto idle = []() -> par::Task<int> {
    int sum = 0;
    for (int i = 0; i < 1000000; ++i) sum += co_await value(1);
    co_return sum;
  };
  BOOST_TEST(par::wait(loop, idle()) == 1000000);
}

BOOST_AUTO_TEST_CASE(a_sleeping_task_lets_others_run_and_is_never_early) {
  par::Reactor loop;
  std::string order;
  const auto task = [](par::Reactor& on, std::string& out, char c) -> par::Task<void> {
    const auto begin = std::chrono::steady_clock::now();
    out += c;
    co_await par::sleep(on, 5ms);
    BOOST_TEST((std::chrono::steady_clock::now() - begin >= 5ms));
    out += c;
  };
  auto a = par::start(loop, task(loop, order, 'a'));
  auto b = par::start(loop, task(loop, order, 'b'));
  BOOST_TEST(order == "ab");  // each has run until its first wait
  loop.run();
  BOOST_TEST(order.size() == 4u);
  BOOST_TEST(a.done());
  BOOST_TEST(b.done());
}

BOOST_AUTO_TEST_CASE(a_cancelled_or_dropped_task_ends_at_each_kind_of_wait) {
  par::Reactor loop;
  auto f = par::run(loop, never);
  par::PoolOptions one;
  one.workers = 1;
  auto pool = par::pool(
      loop, [](int) { return ::pause(); }, one);
  auto process = par::process(
      loop, [](par::Pipe<std::string, int> p) { p.on_message([](const std::string&) {}); });
  check_ends(loop, [&] { return par::call(f, 1); });
  check_ends(loop, [&] { return par::call(pool, 1); });
  check_ends(loop, [&] { return par::sleep(loop, 1h); });
  check_ends(loop, [&] { return par::when_all(par::call(f, 1), par::sleep(loop, 1h)); });
  check_ends(loop, [&] { return par::when_any(par::call(f, 1), par::sleep(loop, 1h)); });
  check_ends(loop, [&] { return par::next(process); });
  check_ends(loop, [&] { return par::ended(process); });
  BOOST_TEST(f.pending() <= 64u);
  par::Options stuck;
  stuck.high_water = 1000;
  auto full = par::process(
      loop,
      [](par::Pipe<std::string, int> p) { p.on_message([](const std::string&) { ::pause(); }); },
      stuck);
  full.send(std::string(5000000, 'x'));
  check_ends(loop, [&] { return par::sent(full, std::string(2000, 'x')); });
  pool.shutdown(0ms);
  full.kill(SIGKILL);
  process.kill(SIGKILL);
  f = {};
  full = {};
  process = {};
  loop.run();
}

BOOST_AUTO_TEST_CASE(a_cancelled_call_is_cancelled_in_its_child) {
  par::Reactor loop;
  auto f = par::run(loop, never);
  auto running =
      par::start(loop, [](auto& g) -> par::Task<int> { co_return co_await par::call(g, 1); }(f));
  BOOST_TEST(f.pending() == 1u);
  running.cancel();
  BOOST_CHECK_EXCEPTION(running.take(), par::Error,
                        [](const par::Error& e) { return e.code() == par::Errc::cancelled; });
  loop.run();
  BOOST_TEST(f.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(a_task_may_clean_up_with_waits_after_its_cancellation) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  const auto task = [](par::Reactor& on, auto& g) -> par::Task<int> {
    bool cancelled = false;
    try {
      co_await par::sleep(on, 1h);
    } catch (const par::Error&) {
      cancelled = true;
    }
    co_return cancelled ? co_await par::call(g, 6) : 0;
  };
  auto running = par::start(loop, task(loop, f));
  running.cancel();
  BOOST_TEST(!running.done());
  loop.run();
  BOOST_TEST(running.take() == 36);
}

BOOST_AUTO_TEST_CASE(a_task_that_cancels_itself_hears_it_at_its_next_wait) {
  par::Reactor loop;
  par::Running<par::Errc> running;
  const auto task = [](par::Reactor& on, par::Running<par::Errc>& self) -> par::Task<par::Errc> {
    co_await par::sleep(on, 1ms);
    self.cancel();
    try {
      co_await par::sleep(on, 1h);
    } catch (const par::Error& error) {
      co_return error.code();
    }
    co_return par::Errc{};
  };
  running = par::start(loop, task(loop, running));
  loop.run();
  BOOST_TEST((running.take() == par::Errc::cancelled));
}

BOOST_AUTO_TEST_CASE(a_task_may_drop_its_own_handle) {
  par::Reactor loop;
  int living = 0;
  auto running = std::make_unique<par::Running<void>>();
  const auto task = [](par::Reactor& on, auto& self, int& count) -> par::Task<void> {
    const Counted counted(count);
    co_await par::sleep(on, 1ms);
    self.reset();
    BOOST_TEST(count == 1);
    co_await par::sleep(on, 1h);
  };
  *running = par::start(loop, task(loop, running, living));
  loop.run();
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(when_all_gives_all_values_in_order) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  const auto task = [](par::Reactor& on, auto& g) -> par::Task<void> {
    const auto [a, b, c, d] = co_await par::when_all(par::call(g, 2), par::sleep(on, 1ms), value(5),
                                                     par::call_result(g, 3));
    BOOST_TEST(a == 4);
    static_assert(std::is_same_v<decltype(b), const std::monostate>);
    BOOST_TEST(c == 5);
    BOOST_TEST(d.value() == 9);
    std::vector<decltype(par::call(g, 0))> many;
    for (int i = 0; i < 100; ++i) many.push_back(par::call(g, i));
    const std::vector<int> all = co_await par::when_all(std::move(many));
    BOOST_TEST(all.size() == 100u);
    for (int i = 0; i < 100; ++i) BOOST_TEST(all[static_cast<std::size_t>(i)] == i * i);
    const std::vector<int> none = co_await par::when_all(std::vector<par::Task<int>>());
    BOOST_TEST(none.empty());
  };
  par::wait(loop, task(loop, f));
}

BOOST_AUTO_TEST_CASE(when_all_cancels_the_others_at_the_first_error_and_throws_it) {
  par::Reactor loop;
  auto f = par::run(loop, refuse);
  int living = 0;
  auto heard = std::make_shared<par::Errc>();
  const auto loser = [](par::Reactor& on, int& count,
                        std::shared_ptr<par::Errc> code) -> par::Task<void> {
    const Counted counted(count);
    try {
      co_await par::sleep(on, 1h);
    } catch (const par::Error& error) {
      *code = error.code();
      throw;
    }
  };
  const auto task = [&](par::Reactor& on, auto& g) -> par::Task<void> {
    co_await par::when_all(loser(on, living, heard), par::call(g, 2), loser(on, living, heard));
  };
  BOOST_CHECK_EXCEPTION(par::wait(loop, task(loop, f)), par::Error, [](const par::Error& e) {
    return e.code() == par::Errc::remote_exception;
  });
  BOOST_TEST(living == 0);
  BOOST_TEST((*heard == par::Errc::cancelled));
  // An error at once: the tasks behind it do not begin.
  const auto failing = []() -> par::Task<int> {
    throw std::out_of_range("at once");
    co_return 0;
  };
  const auto at_once = [&](par::Reactor& on) -> par::Task<void> {
    co_await par::when_all(loser(on, living, heard), failing(), loser(on, living, heard));
  };
  BOOST_CHECK_THROW(par::wait(loop, at_once(loop)), std::out_of_range);
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(when_any_gives_the_first_and_cancels_the_losers) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  auto endless = par::run(loop, never);
  const auto task = [](par::Reactor& on, auto& g, auto& h) -> par::Task<void> {
    const auto first = co_await par::when_any(par::sleep(on, 1h), par::call(g, 3), par::call(h, 1));
    BOOST_TEST(first.index() == 1u);
    BOOST_TEST(std::get<1>(first) == 9);
    const auto at_once = co_await par::when_any(par::sleep(on, 1h), value(2), value(3));
    BOOST_TEST(at_once.index() == 1u);
    std::vector<par::Task<int>> many;
    const auto one = [](auto& r, int x) -> par::Task<int> { co_return co_await par::call(r, x); };
    many.push_back(one(h, 1));
    many.push_back(one(g, 4));
    const auto [index, answer] = co_await par::when_any(std::move(many));
    BOOST_TEST(index == 1u);
    BOOST_TEST(answer == 16);
  };
  par::wait(loop, task(loop, f, endless));
  loop.run();
  BOOST_TEST(endless.pending() == 0u);
  BOOST_CHECK_THROW(static_cast<void>(par::when_any(std::vector<par::Task<int>>())),
                    std::logic_error);
  BOOST_CHECK_THROW(static_cast<void>(par::when_all(par::Task<int>(), value(1))), std::logic_error);
}

BOOST_AUTO_TEST_CASE(a_running_task_has_its_answer_once) {
  par::Reactor loop;
  auto running = par::start(loop, [](par::Reactor& on) -> par::Task<int> {
    co_await par::sleep(on, 1ms);
    co_return 3;
  }(loop));
  BOOST_CHECK_THROW(running.take(), std::logic_error);
  loop.run();
  BOOST_TEST(running.take() == 3);
  BOOST_CHECK_THROW(running.take(), std::logic_error);
  BOOST_CHECK_THROW(static_cast<void>(par::start(loop, par::Task<int>())), std::logic_error);
  BOOST_CHECK_THROW(par::wait(loop, par::Task<int>()), std::logic_error);
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_detached_task_leaves_the_loop) {
  par::Reactor loop;
  int living = 0;
  const auto task = [](par::Reactor& on, int& count,
                       std::chrono::milliseconds time) -> par::Task<void> {
    const Counted counted(count);
    if (time > 0ms) co_await par::sleep(on, time);
    throw std::out_of_range("detached");
  };
  par::start(loop, task(loop, living, 1ms)).detach();
  BOOST_TEST(living == 1);
  BOOST_CHECK_THROW(loop.run(), std::out_of_range);
  BOOST_TEST(living == 0);
  par::start(loop, task(loop, living, 0ms)).detach();  // it has failed before that
  BOOST_CHECK_THROW(loop.run(), std::out_of_range);
  par::start(loop, value(1)).detach();
  loop.run();
}

BOOST_AUTO_TEST_CASE(a_task_that_nothing_could_end_is_an_error_of_wait) {
  par::Reactor loop;
  par::Reactor other;
  int living = 0;
  BOOST_CHECK_THROW(par::wait(loop, code_at(par::sleep(other, 1h), living)), std::logic_error);
  BOOST_TEST(living == 0);
  bool refused = false;
  const par::Timer inside = loop.after(0ms, [&] {
    try {
      par::wait(loop, par::sleep(loop, 1ms));
    } catch (const std::logic_error&) {
      refused = true;
    }
  });
  loop.run();
  BOOST_TEST(refused);
}

BOOST_AUTO_TEST_CASE(a_wait_that_is_stopped_or_left_by_an_exception_destroys_its_task) {
  par::Reactor loop;
  int living = 0;
  const par::Timer stop = loop.after(1ms, [&] { loop.stop(); });
  BOOST_CHECK_EXCEPTION(par::wait(loop, code_at(par::sleep(loop, 1h), living)), par::Error,
                        [](const par::Error& e) { return e.code() == par::Errc::cancelled; });
  BOOST_TEST(living == 0);
  const par::Timer thrower = loop.after(1ms, [] { throw std::out_of_range("callback"); });
  BOOST_CHECK_THROW(par::wait(loop, code_at(par::sleep(loop, 1h), living)), std::out_of_range);
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(a_loop_that_is_destroyed_first_leaves_no_task) {
  int living = 0;
  par::Running<par::Errc> left;
  {
    par::Reactor loop;
    auto f = par::run(loop, never);
    auto process = par::process(
        loop, [](par::Pipe<std::string, int> p) { p.on_message([](const std::string&) {}); });
    left = par::start(loop, code_at(par::call(f, 1), living));
    par::start(loop, code_at(par::call(f, 1), living)).detach();
    par::start(loop, code_at(par::sleep(loop, 1h), living)).detach();
    par::start(loop, code_at(par::when_all(par::call(f, 1), par::sleep(loop, 1h)), living))
        .detach();
    par::start(loop, code_at(par::next(process), living)).detach();
    par::start(loop, code_at(par::ended(process), living)).detach();
    BOOST_TEST(living == 6);
    loop.run_for(10ms);
    BOOST_TEST(living == 6);
  }
  BOOST_TEST(living == 1);
  BOOST_TEST(!left.done());
  left = {};
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(a_remote_function_or_process_that_is_dropped_ends_the_waits_for_it) {
  par::Reactor loop;
  int living = 0;
  auto f = par::run(loop, never);
  auto process = par::process(
      loop, [](par::Pipe<std::string, int> p) { p.on_message([](const std::string&) {}); });
  auto call = par::start(loop, code_at(par::call(f, 1), living));
  auto next = par::start(loop, code_at(par::next(process), living));
  auto end = par::start(loop, code_at(par::ended(process), living));
  f = {};
  process = {};
  loop.run();
  BOOST_TEST((call.take() == par::Errc::cancelled));
  BOOST_TEST((next.take() == par::Errc{}));  // the end
  BOOST_TEST((end.take() == par::Errc::cancelled));
}

// ---- in the child ----

namespace {

par::Task<std::string> repeat(const std::string& text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) {
    co_await par::sleep(par::this_reactor(), 1ms);
    all += text;
  }
  co_return all;
}

par::Task<int> gather(int id, int count) {
  static int waiting;
  static int released;
  static_cast<void>(id);
  ++waiting;
  while (waiting < count) co_await par::sleep(par::this_reactor(), 1ms);
  co_return++ released;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_coroutine_is_a_remote_function_and_its_arguments_live_as_long) {
  par::Reactor loop;
  auto f = par::run(loop, repeat);
  const std::string text(100, 'x');
  BOOST_TEST(par::wait(loop, par::call(f, text, 3)) == text + text + text);
  // Bound values and captures, and fn(), which has parameters of its own.
  int added = 7;
  auto bound = par::run(
      loop, par::bind(
                [added](const std::string& a, const std::string& b) -> par::Task<std::string> {
                  co_await par::sleep(par::this_reactor(), 1ms);
                  co_return a + b + std::to_string(added);
                },
                std::string(50, 'a')));
  BOOST_TEST(bound.wait(std::string(50, 'b')).value() ==
             std::string(50, 'a') + std::string(50, 'b') + "7");
  auto generic = par::run(loop, par::fn<par::Task<std::string>(std::string)>(
                                    [](const auto& a) -> par::Task<std::string> {
                                      co_await par::sleep(par::this_reactor(), 1ms);
                                      co_return a;
                                    }));
  BOOST_TEST(generic.wait(text).value() == text);
}

BOOST_AUTO_TEST_CASE(many_calls_of_one_child_are_suspended_at_once) {
  par::Reactor loop;
  auto f = par::run(loop, gather);
  int right = 0;
  for (int i = 0; i < 100; ++i) f(i, 100, [&](par::Result<int> r) { right += r.value() > 0; });
  loop.run();
  BOOST_TEST(right == 100);
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_coroutine_in_a_child_is_the_error_of_its_call) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) -> par::Task<void> {
    if (x > 0) co_await par::sleep(par::this_reactor(), 1ms);
    if (x != 5) throw std::out_of_range("here");
  });
  for (int x : {0, 1}) {
    const auto result = f.wait(x);
    BOOST_TEST((result.error().code() == par::Errc::remote_exception));
    BOOST_TEST(result.error().remote_type() == "std::out_of_range");
  }
  f.wait(5).value();
}

BOOST_AUTO_TEST_CASE(a_coroutine_in_a_child_calls_other_children) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) -> par::Task<int> {
    auto g = par::run(par::this_reactor(), square);
    const auto [a, b] = co_await par::when_all(par::call(g, x), par::call(g, x + 1));
    co_return a + b;
  });
  BOOST_TEST(par::wait(loop, par::call(f, 3)) == 25);
}

BOOST_AUTO_TEST_CASE(a_child_ends_while_its_calls_are_suspended) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) -> par::Task<int> {
    co_await par::sleep(par::this_reactor(), 1h);
    co_return x;
  });
  int cancelled = 0;
  for (int i = 0; i < 10; ++i)
    f(i, [&](par::Result<int> r) { cancelled += r.error().code() == par::Errc::cancelled; });
  loop.run_for(20ms);
  f = {};
  loop.run();
  BOOST_TEST(cancelled == 10);
}

// ---- pipes ----

namespace {

par::Task<void> echo(par::Pipe<std::string, std::string> pipe) {
  while (const auto message = co_await par::next(pipe))
    co_await par::sent(pipe, "<" + *message + ">");
  co_await par::sent(pipe, "bye");
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_process_is_a_coroutine_and_so_is_its_parent) {
  par::Reactor loop;
  const auto task = [](par::Reactor& on) -> par::Task<std::string> {
    auto process = par::process(on, echo);
    std::string all;
    for (const char* text : {"a", "b", "c"}) {
      co_await par::sent(process, text);
      all += (co_await par::next(process)).value();
    }
    process.close();
    while (const auto rest = co_await par::next(process)) all += *rest;
    const auto still = co_await par::next(process);
    BOOST_TEST(!still.has_value());
    const par::ExitStatus status = co_await par::ended(process);
    BOOST_TEST((status.cause == par::Cause::normal));
    const par::ExitStatus again = co_await par::ended(process);
    BOOST_TEST(again.pid == status.pid);
    co_return all;
  };
  BOOST_TEST(par::wait(loop, task(loop)) == "<a><b><c>bye");
}

BOOST_AUTO_TEST_CASE(a_child_ends_with_its_coroutine_though_the_parent_goes_on) {
  par::Reactor loop;
  auto process = par::process(loop, [](par::Pipe<std::string, int> pipe) -> par::Task<void> {
    co_await par::next(pipe);
    co_await par::sent(pipe, 7);
  });
  process.send("go");
  process.send("not read");
  const auto task = [](auto& p) -> par::Task<void> {
    const std::optional<int> answer = co_await par::next(p);
    BOOST_TEST(answer.value() == 7);
    const par::ExitStatus status = co_await par::ended(p);
    BOOST_TEST((status.cause == par::Cause::normal));
  };
  par::wait(loop, task(process));
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_process_coroutine_is_a_remote_exception) {
  par::Reactor loop;
  const auto fail = [](par::Pipe<int, int> pipe) -> par::Task<void> {
    co_await par::next(pipe);
    throw std::out_of_range("in the child");
  };
  auto process = par::process(loop, fail);
  std::string type;
  process.on_error([&](const par::Error& e) { type = e.remote_type(); });
  process.send(1);
  loop.run();
  BOOST_TEST(type == "std::out_of_range");
  // The same as the error of next().
  auto other = par::process(loop, fail);
  other.send(1);
  int living = 0;
  const par::Errc code = par::wait(loop, code_at(par::next(other), living));
  BOOST_TEST((code == par::Errc::remote_exception));
}

BOOST_AUTO_TEST_CASE(a_pipe_is_braked_between_two_messages) {
  par::Reactor loop;
  par::Options options;
  options.high_water = 1000;
  constexpr int count = 100;
  *written = 0;
  auto process = par::process(
      loop,
      [](par::Pipe<int, std::string> pipe) -> par::Task<void> {
        for (int i = 0; i < count; ++i) {
          co_await par::sent(pipe, std::to_string(i) + std::string(100000, 'x'));
          *written = i + 1;
        }
      },
      options);
  const auto task = [](par::Reactor& on, auto& p) -> par::Task<void> {
    for (int i = 0; i < count; ++i) {
      const auto message = co_await par::next(p);
      BOOST_TEST(message.value() == std::to_string(i) + std::string(100000, 'x'));
      if (i > 0) continue;
      co_await par::sleep(on, 100ms);
      BOOST_TEST(*written <= count / 2);  // the buffers of the kernel take the first few
    }
    const auto end = co_await par::next(p);
    BOOST_TEST(!end.has_value());
    const par::ExitStatus status = co_await par::ended(p);
    BOOST_TEST((status.cause == par::Cause::normal));
  };
  par::wait(loop, task(loop, process));
  BOOST_TEST(*written == count);
}

BOOST_AUTO_TEST_CASE(a_message_that_cannot_be_read_is_an_error_of_next_and_the_pipe_goes_on) {
  par::Reactor loop;
  auto process = par::process(loop, [](par::Pipe<int, Even> pipe) -> par::Task<void> {
    for (int i = 0; i < 3; ++i) co_await par::sent(pipe, Even{i});
  });
  const auto task = [](auto& p) -> par::Task<std::string> {
    std::string heard;
    for (;;) {
      try {
        const auto message = co_await par::next(p);
        if (!message) co_return heard;
        heard += std::to_string(message->x);
      } catch (const par::Error& error) {
        heard += to_string(error.code());
      }
    }
  };
  BOOST_TEST(par::wait(loop, task(process)) == "0bad_message2");
}

BOOST_AUTO_TEST_CASE(ended_drops_unread_messages_and_answers_after_the_end) {
  par::Reactor loop;
  const auto pour = [](par::Pipe<int, std::string> pipe) -> par::Task<void> {
    for (int i = 0; i < 50; ++i) co_await par::sent(pipe, std::string(100000, 'x'));
  };
  auto process = par::process(loop, pour);
  const auto task = [](auto& p) -> par::Task<void> {
    const auto message = co_await par::next(p);
    BOOST_TEST(message.value().size() == 100000u);
    for (int i = 0; i < 2; ++i) {
      const par::ExitStatus status = co_await par::ended(p);
      BOOST_TEST((status.cause == par::Cause::normal));
    }
  };
  par::wait(loop, task(process));
  auto killed = par::process(loop, pour);
  killed.kill(SIGKILL);
  killed.on_message([](const std::string&) {});
  killed.on_error([](const par::Error&) {});
  loop.run();
  BOOST_TEST((par::wait(loop, par::ended(killed)).cause == par::Cause::killed));
}

BOOST_AUTO_TEST_CASE(next_and_on_message_exclude_each_other) {
  par::Reactor loop;
  int living = 0;
  auto process = par::process(loop, echo);
  auto first = par::start(loop, code_at(par::next(process), living));
  BOOST_CHECK_THROW(par::wait(loop, par::next(process)), std::logic_error);
  BOOST_CHECK_THROW(process.on_message([](const std::string&) {}), std::logic_error);
  first = {};
  process.on_message([](const std::string&) {});
  BOOST_CHECK_THROW(par::wait(loop, par::next(process)), std::logic_error);
  process.close();
  loop.run();
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(a_dead_child_ends_the_waits_for_room_and_for_messages) {
  par::Reactor loop;
  par::Options options;
  options.high_water = 1000;
  auto process = par::process(
      loop,
      [](par::Pipe<std::string, int> p) { p.on_message([](const std::string&) { ::pause(); }); },
      options);
  int living = 0;
  process.send(std::string(5000000, 'x'));
  auto room = par::start(loop, code_at(par::sent(process, std::string(2000, 'x')), living));
  auto message = par::start(loop, code_at(par::next(process), living));
  process.kill(SIGKILL);
  loop.run();
  BOOST_TEST((room.take() == par::Errc::closed));
  BOOST_TEST((message.take() == par::Errc::child_killed));
  BOOST_TEST((par::wait(loop, code_at(par::sent(process, "late"), living)) == par::Errc::closed));
}

#else

BOOST_AUTO_TEST_CASE(coroutines_need_a_compiler_that_has_them) {
  testing::skip("the compiler has no coroutines");
}

#endif

// ---- interrupts ----

BOOST_AUTO_TEST_CASE(a_signal_ends_the_wait_for_a_task) {
  par::Reactor loop;
  const par::Interrupts guard = par::interruptible();
  const auto forever = [](par::Reactor& on) -> par::Task<void> { co_await par::sleep(on, 1h); };
  const par::Timer soon = loop.after(1ms, [] { ::raise(SIGINT); });
  BOOST_CHECK_THROW(par::wait(loop, forever(loop)), par::Interrupted);
}
