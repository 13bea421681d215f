// waiting.cpp - calls that run the loop until they are answered, and maps without a loop in sight.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <unistd.h>

#include <list>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
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

// A map() of the program itself, which argument-dependent look-up finds.
namespace mine {

struct Item {
  int value = 0;
};

std::string map(const std::vector<Item>&, int (*)(int)) {
  return "mine";
}

std::string choose(const std::vector<Item>& items) {
  using namespace par;
  return map(items, twice);
}

}  // namespace mine

}  // namespace

// ---- one call ----

BOOST_AUTO_TEST_CASE(wait_returns_the_value_or_the_error_of_the_call) {
  par::Reactor loop;
  auto f = par::run(loop, twice);
  BOOST_TEST(f.wait(21).value() == 42);
  const par::Result<int> failed = f.wait(-1);
  BOOST_REQUIRE(!failed);
  BOOST_TEST((failed.error().code() == par::Errc::remote_exception));
  BOOST_TEST(f.wait(1).value() == 2);
}

BOOST_AUTO_TEST_CASE(wait_takes_no_argument_and_gives_no_value_where_the_function_does) {
  par::Reactor loop;
  auto seven = par::run(loop, [] { return 7; });
  BOOST_TEST(seven.wait().value() == 7);
  auto nothing = par::run(loop, [](int) {});
  BOOST_TEST(nothing.wait(1).has_value());
}

BOOST_AUTO_TEST_CASE(wait_sends_an_argument_that_is_moved_in_or_copied) {
  par::Reactor loop;
  auto size = par::run(loop, [](const std::string& text) { return text.size(); });
  std::string text(100000, 'x');
  BOOST_TEST(size.wait(text).value() == 100000u);
  BOOST_TEST(text.size() == 100000u);
  BOOST_TEST(size.wait(std::move(text)).value() == 100000u);
}

BOOST_AUTO_TEST_CASE(other_callbacks_run_while_a_call_is_waited_for) {
  par::Reactor loop;
  auto f = par::run(loop, twice);
  int sum = 0;
  for (int i = 1; i <= 3; ++i) f(i, [&](par::Result<int> r) { sum += r.value(); });
  BOOST_TEST(f.wait(10).value() == 20);  // answered in order, behind the others
  BOOST_TEST(sum == 12);
}

BOOST_AUTO_TEST_CASE(wait_inside_a_callback_is_refused_and_the_call_is_not_made) {
  par::Reactor loop;
  par::PoolOptions one;
  one.workers = 1;
  auto f = par::run(loop, twice);
  auto pool = par::pool(loop, twice, one);
  std::vector<std::string> refused;
  f(1, [&](par::Result<int>) {
    refused.push_back(misuse_of([&] { static_cast<void>(f.wait(2)); }));
    refused.push_back(misuse_of([&] { static_cast<void>(pool.wait(2)); }));
    refused.push_back(misuse_of([&] { static_cast<void>(pool.wait_map(std::vector<int>{1})); }));
    refused.push_back(misuse_of([&] { static_cast<void>(par::map(std::vector<int>{1}, twice)); }));
    BOOST_TEST(f.pending() == 0u);
    BOOST_TEST(pool.pending() == 0u);
  });
  loop.run();
  BOOST_REQUIRE(refused.size() == 4u);
  for (std::size_t i = 0; i < 3; ++i) BOOST_TEST(has(refused[i], "inside a callback"), refused[i]);
  BOOST_TEST(has(refused[3], "Pool::map"), refused[3]);
}

BOOST_AUTO_TEST_CASE(an_exception_of_another_callback_leaves_wait_and_cancels_the_call) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    while (x < 0 && !par::this_call::cancelled()) {}
    return x;
  });
  const par::Timer soon = loop.after(1ms, [] { throw std::runtime_error("from a timer"); });
  BOOST_CHECK_EXCEPTION(static_cast<void>(f.wait(-1)), std::runtime_error,
                        [](const auto& e) { return has(e.what(), "from a timer"); });
  loop.run();  // the cancelled call is over
  BOOST_TEST(f.pending() == 0u);
  BOOST_TEST(f.wait(5).value() == 5);
}

BOOST_AUTO_TEST_CASE(stop_ends_wait_with_cancelled) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    while (x < 0 && !par::this_call::cancelled()) {}
    return x;
  });
  const par::Timer soon = loop.after(1ms, [&] { loop.stop(); });
  const par::Result<int> result = f.wait(-1);
  BOOST_REQUIRE(!result);
  BOOST_TEST((result.error().code() == par::Errc::cancelled));
  loop.run();
  BOOST_TEST(f.wait(5).value() == 5);
}

BOOST_AUTO_TEST_CASE(wait_works_on_a_loop_of_a_child) {
  par::Reactor loop;
  auto outer = par::run(loop, [](int x) {
    auto inner = par::run(par::this_reactor(), twice);
    return inner.wait(x).value() + 1;
  });
  BOOST_TEST(outer.wait(4).value() == 9);
}

BOOST_AUTO_TEST_CASE(wait_after_close_is_refused) {
  par::Reactor loop;
  auto f = par::run(loop, twice);
  BOOST_TEST(f.wait(1).value() == 2);
  f.close();
  BOOST_TEST(has(misuse_of([&] { static_cast<void>(f.wait(1)); }), "close()"));
}

// ---- a pool ----

BOOST_AUTO_TEST_CASE(a_pool_waits_for_one_call_and_for_a_map) {
  par::Reactor loop;
  auto pool = par::pool(loop, twice);
  BOOST_TEST(pool.wait(4).value() == 8);
  const auto results = pool.wait_map(std::vector<int>{1, -1, 3});
  BOOST_REQUIRE(results.size() == 3u);
  BOOST_TEST(results[0].value() == 2);
  BOOST_TEST((results[1].error().code() == par::Errc::remote_exception));
  BOOST_TEST(results[2].value() == 6);
  BOOST_TEST(pool.wait_map(std::vector<int>{}).empty());
}

BOOST_AUTO_TEST_CASE(results_that_come_in_any_order_are_returned_in_that_of_the_items) {
  par::Reactor loop;
  auto pool = par::pool(loop, twice);
  std::list<int> items;
  for (int i = 0; i < 500; ++i) items.push_back(i);
  par::MapOptions options;
  options.ordered = false;
  const auto results = pool.wait_map(items, std::move(options));
  BOOST_REQUIRE(results.size() == 500u);
  bool right = true;
  for (std::size_t i = 0; i < results.size(); ++i)
    right = right && results[i].value() == static_cast<int>(2 * i);
  BOOST_TEST(right);
}

BOOST_AUTO_TEST_CASE(a_map_that_stops_at_an_error_returns_the_results_up_to_it) {
  par::Reactor loop;
  par::PoolOptions one;
  one.workers = 1;
  auto pool = par::pool(loop, twice, one);
  par::MapOptions options;
  options.stop_on_error = true;
  const auto results = pool.wait_map(std::vector<int>{1, -1, 3, 4}, std::move(options));
  BOOST_REQUIRE(results.size() == 2u);
  BOOST_TEST(results[0].value() == 2);
  BOOST_TEST((results[1].error().code() == par::Errc::remote_exception));
}

BOOST_AUTO_TEST_CASE(stop_ends_a_map_that_is_waited_for) {
  par::Reactor loop;
  par::PoolOptions one;
  one.workers = 1;
  auto pool = par::pool(
      loop,
      [](int x) {
        while (x < 0 && !par::this_call::cancelled()) {}
        return x;
      },
      one);
  par::Timer look = loop.every(1ms, [&] {
    if (pool.stats().done < 1) return;
    look.cancel();
    loop.stop();
  });
  par::MapOptions options;
  options.chunk = 1;
  const auto results = pool.wait_map(std::vector<int>{1, -1}, std::move(options));
  BOOST_REQUIRE(!results.empty());
  BOOST_TEST(results[0].value() == 1);
  BOOST_TEST(results.size() < 2u);
}

// ---- without a loop in sight ----

BOOST_AUTO_TEST_CASE(map_gives_all_results_and_values_the_values) {
  const std::vector<int> items{1, 2, 3};
  const std::vector<int> doubled = par::values(par::map(items, twice));
  BOOST_TEST(doubled == (std::vector<int>{2, 4, 6}), boost::test_tools::per_element());
  const auto raw = par::map_with<par::RawIo, par::RawIo>(items, twice);
  BOOST_REQUIRE(raw.size() == 3u);
  BOOST_TEST(raw[2].value() == 6);
  par::values(par::map(items, [](int) {}));
}

BOOST_AUTO_TEST_CASE(values_throws_the_first_error) {
  BOOST_CHECK_EXCEPTION(par::values(par::map(std::vector<int>{1, -2, -3}, twice)), par::Error,
                        [](const par::Error& e) { return has(e.what(), "below zero"); });
}

BOOST_AUTO_TEST_CASE(map_of_the_program_itself_is_found_beside_that_of_the_library) {
  BOOST_TEST(mine::choose({}) == "mine");
}

BOOST_AUTO_TEST_CASE(map_takes_a_snapshot_where_there_is_none) {
  const int status = testing::elsewhere([] {
    const std::vector<int> doubled = par::values(par::map(std::vector<int>{4}, twice));
    if (doubled != std::vector<int>{8}) return 1;
    const pid_t first = par::default_snapshot().pid();
    static_cast<void>(par::map(std::vector<int>{4}, twice));
    return par::default_or_init().pid() == first ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(map_says_what_is_in_the_way_of_a_snapshot) {
  const int status = testing::elsewhere([] {
    const par::Reactor in_the_way;
    const auto error =
        testing::error_of([] { static_cast<void>(par::map(std::vector<int>{4}, twice)); });
    return error && error->code() == par::Errc::refused ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(map_in_a_child_is_refused) {
  par::Reactor loop;
  auto f = par::run(loop, [] {
    return misuse_of([] { static_cast<void>(par::map(std::vector<int>{4}, twice)); });
  });
  BOOST_TEST(has(f.wait().value(), "in a child"));
}

BOOST_AUTO_TEST_CASE(default_or_init_takes_the_snapshot_once) {
  const int status = testing::elsewhere([] {
    par::SnapshotOptions options;
    options.name = "first";
    const pid_t pid = par::default_or_init(options).pid();
    if (par::default_or_init().pid() != pid) return 1;
    if (par::default_snapshot().pid() != pid) return 2;
    return misuse_of([] { par::init(); }).empty() ? 3 : 0;
  });
  BOOST_TEST(status == 0);
}
