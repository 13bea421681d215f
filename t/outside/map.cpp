// map.cpp - maps of a pool, with the public interface: every item once, in order, even if children die.
#include "calling.hpp"
#include "errors.hpp"
#include "mapping.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <sstream>
#include <stdexcept>

namespace par = evparallel;
using testing::into;
using testing::numbers;
using testing::Received;
using testing::summary_of;
using namespace std::chrono_literals;

namespace {

// Memory that the children of a case share with it.
struct Shared {
  std::atomic<bool> open{false};
  std::atomic<int> calls{0};
  std::atomic<int> twice{0};
  std::atomic<unsigned char> times[20000]{};
};
Shared* shared = nullptr;

}  // namespace

void testing_main_init() {
  shared = &testing::shared<Shared>();
  testing::take_default_snapshot();
}

namespace {

void reset() {
  new (shared) Shared;
}

int mixed(int x) {
  return x ^ 21;
}

par::PoolOptions of(unsigned workers) {
  par::PoolOptions options;
  options.workers = workers;
  return options;
}

par::MapOptions unordered() {
  par::MapOptions options;
  options.ordered = false;
  return options;
}

}  // namespace

// ---- ranges ----

BOOST_AUTO_TEST_CASE(every_item_is_mapped_once_and_in_order) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(3));
  Received received(20000);
  pool.map(numbers(20000), into(received), summary_of(received));
  BOOST_TEST(received.next == 0u);  // never from inside the call
  loop.run();
  BOOST_TEST(received.each_once());
  BOOST_TEST(received.right == 20000u);
  BOOST_TEST(received.in_order);
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->done == 20000u);
  BOOST_TEST(received.summary->failed == 0u);
  BOOST_TEST(!received.summary->stopped);
  BOOST_TEST(!received.summary->error.has_value());
  BOOST_TEST((received.summary->time > 0ns));
  BOOST_TEST(pool.stats().done == 20000u);
  BOOST_TEST(pool.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(results_of_an_unordered_map_are_delivered_as_they_arrive) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        while (x == 0 && !shared->open) ::usleep(100);
        return x ^ 21;
      },
      of(2));
  Received received(1000);
  pool.map(
      numbers(1000),
      [&](std::size_t i, par::Result<int> r) {
        into(received)(i, r);
        // The first item is the last one to finish, if nothing else is in its chunk.
        if (i == 999) shared->open = true;
      },
      summary_of(received), unordered());
  loop.run();
  BOOST_TEST(received.each_once());
  BOOST_TEST(received.right == 1000u);
  BOOST_TEST(!received.in_order);
}

BOOST_AUTO_TEST_CASE(an_empty_range_is_mapped) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received(0);
  pool.map(std::vector<int>{}, into(received), summary_of(received));
  BOOST_TEST(!received.summary.has_value());
  loop.run();
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->done == 0u);
}

BOOST_AUTO_TEST_CASE(ranges_of_all_kinds_are_mapped) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  std::vector<std::size_t> sizes;
  const auto go = [&](auto&& range) {
    Received received(100);
    pool.map(std::forward<decltype(range)>(range), into(received), summary_of(received));
    loop.run();
    BOOST_TEST(received.each_once());
    BOOST_TEST(received.right == 100u);
  };
  std::vector<int> vector = numbers(100);
  go(vector);
  const std::vector<int> constant = vector;
  go(constant);
  go(std::list<int>(vector.begin(), vector.end()));
  go(std::set<int>(vector.begin(), vector.end()));
  go(std::vector<short>(vector.begin(), vector.end()));
  int array[100];
  std::copy(vector.begin(), vector.end(), array);
  go(array);
  int next = 0;
  go([&]() -> std::optional<int> {
    if (next == 100) return std::nullopt;
    return next++;
  });
}

BOOST_AUTO_TEST_CASE(a_map_needs_no_on_done) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  const std::vector<int> items = numbers(100);
  std::size_t calls = 0;
  const auto finishes = [&](auto start) {
    Received received(100);
    start(into(received));
    loop.run();
    BOOST_TEST(received.each_once());
    BOOST_TEST(received.right == 100u);
    BOOST_TEST(pool.pending() == 0u);
    ++calls;
  };
  finishes([&](auto on_result) { pool.map(items, on_result); });
  finishes([&](auto on_result) { pool.map(items, on_result, {}); });
  finishes([&](auto on_result) { pool.map(items, on_result, par::MapOptions{}); });
  finishes([&](auto on_result) { pool.map(items, on_result, [](const par::MapSummary&) {}, {}); });
  par::MapOptions options;
  std::optional<par::Progress> last;
  options.on_progress = [&](const par::Progress& progress) { last = progress; };
  finishes([&](auto on_result) { pool.map(items, on_result, std::move(options)); });
  BOOST_REQUIRE(last.has_value());
  BOOST_TEST(last->done == 100u);
  BOOST_TEST(calls == 5u);
}

BOOST_AUTO_TEST_CASE(a_map_without_on_done_can_be_stopped) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(1));
  Received received(1000);
  par::MapOptions options;
  options.chunk = 10;
  par::MapHandle map;
  const auto on_result = [&](std::size_t index, const par::Result<int>& r) {
    into(received)(index, r);
    if (index == 4) map.cancel();
  };
  map = pool.map(numbers(1000), on_result, std::move(options));
  loop.run();
  BOOST_TEST(received.next == 5u);
  BOOST_TEST(pool.pending() == 0u);
}

namespace {

// Single pass, and without a size.
struct Words {
  std::istringstream text;
  std::istream_iterator<int> begin() { return std::istream_iterator<int>(text); }
  std::istream_iterator<int> end() { return {}; }
};

}  // namespace

BOOST_AUTO_TEST_CASE(an_input_iterator_is_mapped) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received(5);
  Words words{std::istringstream("0 1 2 3 4")};
  pool.map(words, into(received), summary_of(received));
  loop.run();
  BOOST_TEST(received.right == 5u);
}

BOOST_AUTO_TEST_CASE(items_are_pulled_as_children_can_take_them) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        while (!shared->open) ::usleep(100);
        return x ^ 21;
      },
      of(2));
  int pulled = 0;
  Received received(100000);
  pool.map(
      [&]() -> std::optional<int> {
        if (pulled == 100000) return std::nullopt;
        return pulled++;
      },
      into(received), summary_of(received));
  BOOST_TEST(testing::eventually([&] {
    loop.run_for(1ms);
    return pulled > 0;
  }));
  for (int i = 0; i < 50; ++i) loop.run_for(1ms);
  BOOST_TEST(pulled < 100);
  shared->open = true;
  loop.run();
  BOOST_TEST(pulled == 100000);
  BOOST_TEST(received.right == 100000u);
}

BOOST_AUTO_TEST_CASE(a_late_result_holds_back_the_range_of_an_ordered_map) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        while (x == 0 && !shared->open) ::usleep(100);
        return x ^ 21;
      },
      of(2));
  int pulled = 0;
  Received received(20000);
  par::MapOptions options;
  options.chunk = 10;
  pool.map(
      [&]() -> std::optional<int> {
        if (pulled == 20000) return std::nullopt;
        return pulled++;
      },
      into(received), summary_of(received), std::move(options));
  int before = -1;
  BOOST_TEST(testing::eventually([&] {
    loop.run_for(20ms);
    return pulled == std::exchange(before, pulled);
  }));
  BOOST_TEST(pulled <= 10 * (64 * 2 + 4));
  shared->open = true;
  loop.run();
  BOOST_TEST(received.right == 20000u);
  BOOST_TEST(received.in_order);
}

BOOST_AUTO_TEST_CASE(strings_are_mapped_with_every_codec) {
  par::Reactor loop;
  const auto twice = [](const std::string& s) { return s + s; };
  const auto go = [&](auto pool) {
    std::size_t right = 0;
    std::vector<std::string> words;
    for (int i = 0; i < 3000; ++i) words.push_back("word" + std::to_string(i));
    words.push_back(std::string(70000, 'a'));
    words.push_back(std::string(3000000, 'b'));
    words.push_back("");
    bool over = false;
    pool.map(
        words,
        [&](std::size_t i, par::Result<std::string> r) {
          right += r.value() == words[i] + words[i];
        },
        [&](const par::MapSummary&) { over = true; });
    loop.run();
    BOOST_TEST(right == words.size());
    BOOST_TEST(over);
  };
  go(par::pool(loop, twice, of(2)));
  go(par::pool<par::RawIo, par::RawIo>(loop, twice, of(2)));
  go(par::pool<par::MsgpackIo, par::CborIo>(loop, twice, of(2)));
}

BOOST_AUTO_TEST_CASE(strings_moved_from_a_generator_are_mapped) {
  par::Reactor loop;
  auto pool = par::pool<par::RawIo, par::RawIo>(
      loop, [](const std::string& s) { return s.size(); }, of(2));
  std::size_t sum = 0;
  int next = 0;
  pool.map(
      [&]() -> std::optional<std::string> {
        if (next == 50) return std::nullopt;
        return std::string(static_cast<std::size_t>(++next) * 10000, 'x');
      },
      [&](std::size_t i, par::Result<std::size_t> r) {
        BOOST_TEST(r.value() == (i + 1) * 10000);
        sum += *r;
      },
      [](const par::MapSummary&) {});
  loop.run();
  BOOST_TEST(sum == 10000u * 50 * 51 / 2);
}

BOOST_AUTO_TEST_CASE(answers_larger_than_a_chunk_are_delivered) {
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.max_message = 500000;
  auto pool = par::pool<par::RawIo, par::RawIo>(
      loop, [](int size) { return std::string(static_cast<std::size_t>(size), 'x'); }, options);
  std::vector<int> sizes(60, 200000);
  sizes[30] = 500001;
  par::MapOptions map;
  map.chunk = 60;
  map.repeatable = false;
  int right = 0;
  std::vector<std::size_t> failed;
  pool.map(
      sizes,
      [&](std::size_t i, par::Result<std::string> r) {
        if (r)
          right += r->size() == 200000;
        else
          failed.push_back(i);
      },
      [](const par::MapSummary&) {}, std::move(map));
  loop.run();
  BOOST_TEST(right == 59);
  BOOST_TEST(failed == std::vector<std::size_t>{30}, boost::test_tools::per_element());
}

// ---- items that fail ----

BOOST_AUTO_TEST_CASE(an_exception_fails_only_its_own_item) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x % 7 == 3) throw std::out_of_range("seven");
        return x ^ 21;
      },
      of(2));
  Received received(10000);
  std::optional<par::Error> first;
  pool.map(
      numbers(10000),
      [&](std::size_t i, par::Result<int> r) {
        into(received)(i, r);
        if (!r && !first) first = r.error();
      },
      summary_of(received));
  loop.run();
  BOOST_TEST(received.each_once());
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.failed.size() == 1429u);
  for (const std::size_t i : received.failed) BOOST_REQUIRE(i % 7 == 3);
  BOOST_REQUIRE(first.has_value());
  BOOST_TEST((first->code() == par::Errc::remote_exception));
  BOOST_TEST(first->remote_type() == "std::out_of_range");
  BOOST_TEST((first->delivery() == par::Delivery::started));
  BOOST_TEST(received.summary->failed == 1429u);
  BOOST_TEST(received.summary->done == 10000u - 1429u);
  BOOST_TEST(received.summary->error->remote_type() == "std::out_of_range");
  BOOST_TEST(pool.stats().failed == 1429u);
}

BOOST_AUTO_TEST_CASE(an_item_that_cannot_be_encoded_fails_alone) {
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](const std::string& s) { return s.size(); }, of(2));
  std::vector<std::string> words(1000, "word");
  words[0] = words[1] = words[500] = words[999] = "\xff";
  std::vector<std::size_t> failed;
  std::size_t next = 0;
  pool.map(
      words,
      [&](std::size_t i, par::Result<std::size_t> r) {
        BOOST_TEST(i == next++);
        if (r) return;
        failed.push_back(i);
        BOOST_TEST((r.error().code() == par::Errc::bad_message));
        BOOST_TEST((r.error().delivery() == par::Delivery::not_sent));
      },
      [](const par::MapSummary&) {});
  loop.run();
  BOOST_TEST(next == 1000u);
  BOOST_TEST(failed == (std::vector<std::size_t>{0, 1, 500, 999}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_map_stops_on_the_first_error) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x == 5000) throw std::runtime_error("half way");
        return x ^ 21;
      },
      of(2));
  Received received(10000);
  par::MapOptions options;
  options.stop_on_error = true;
  pool.map(numbers(10000), into(received), summary_of(received), std::move(options));
  loop.run();
  BOOST_TEST(received.next == 5001u);
  BOOST_TEST(received.right == 5000u);
  BOOST_TEST(received.in_order);
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->stopped);
  BOOST_TEST(received.summary->failed == 1u);
  BOOST_TEST(received.summary->error->remote_type() == "std::runtime_error");
  // The pool still works.
  Received again(100);
  pool.map(numbers(100), into(again), summary_of(again));
  loop.run();
  BOOST_TEST(again.right == 100u);
}

BOOST_AUTO_TEST_CASE(a_range_that_throws_ends_its_map_and_loses_nothing) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received(100);
  int next = 0;
  pool.map(
      [&]() -> std::optional<int> {
        if (next == 100) throw std::runtime_error("cannot read on");
        return next++;
      },
      into(received), summary_of(received));
  BOOST_CHECK_THROW(loop.run(), std::runtime_error);
  loop.run();
  BOOST_TEST(received.right == 100u);
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->stopped);
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_callback_is_thrown_out_of_run_and_loses_no_result) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received(5000);
  pool.map(
      numbers(5000),
      [&](std::size_t i, par::Result<int> r) {
        into(received)(i, r);
        if (i % 1000 == 500) throw std::runtime_error("mine");
      },
      summary_of(received));
  for (int i = 0; i < 5; ++i) BOOST_CHECK_THROW(loop.run(), std::runtime_error);
  loop.run();
  BOOST_TEST(received.each_once());
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.right == 5000u);
  BOOST_TEST(received.summary.has_value());
}

// ---- children that die ----

namespace {

// Kills a random child of the pool after every 200 items, if it has one then; returns the number of killed children.
// The pool may not know yet that one is dead, and its number may be that of another process.
template <class Pool>
int kill_while_mapping(par::Reactor& loop, Pool& pool, Received& received,
                       par::MapOptions options) {
  std::set<pid_t> killed;
  std::size_t since_last = 0;
  std::uint32_t random = 12345;
  pool.map(
      numbers(20000),
      [&](std::size_t i, par::Result<int> r) {
        into(received)(i, r);
        if (++since_last < 200) return;
        const auto workers = pool.stats().workers;
        if (workers.empty()) return;
        random = random * 1664525 + 1013904223;
        const pid_t pid = workers[(random >> 16) % workers.size()].pid;
        if (pid <= 0 || !killed.insert(pid).second) return;
        BOOST_TEST(::kill(pid, SIGKILL) == 0);
        since_last = 0;
      },
      summary_of(received), std::move(options));
  loop.run();
  return static_cast<int>(killed.size());
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_map_with_retries_survives_constant_kills) {
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.retries = 1000;
  options.child.idempotent = true;
  options.max_failed_starts = 1000;
  auto pool = par::pool(loop, mixed, options);
  Received received(20000);
  const int killed = kill_while_mapping(loop, pool, received, {});
  BOOST_TEST(killed > 0);
  BOOST_TEST(received.each_once());
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.right == 20000u);
  BOOST_TEST(received.summary->done == 20000u);
}

BOOST_AUTO_TEST_CASE(a_map_without_retries_reports_constant_kills) {
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.max_failed_starts = 1000;
  auto pool = par::pool(loop, mixed, options);
  Received received(20000);
  par::MapOptions map = unordered();
  map.repeatable = false;
  map.chunk = 50;
  const int killed = kill_while_mapping(loop, pool, received, std::move(map));
  BOOST_TEST(killed > 0);
  BOOST_TEST(received.each_once());
  BOOST_TEST(received.right + received.failed.size() == 20000u);
  BOOST_TEST(received.summary->failed == received.failed.size());
}

BOOST_AUTO_TEST_CASE(one_fatal_item_in_a_million_is_found) {
  par::Reactor loop;
  auto pool = par::pool<par::RawIo, par::RawIo>(
      loop,
      [](int x) {
        // Twenty of them, at pseudorandom places.
        if (static_cast<std::uint32_t>(x) * 2654435761u < 86000u) ::raise(SIGSEGV);
        return x ^ 1;
      },
      of(2));
  constexpr int count = 1000000;
  std::vector<std::size_t> poison;
  for (int i = 0; i < count; ++i)
    if (static_cast<std::uint32_t>(i) * 2654435761u < 86000u)
      poison.push_back(static_cast<std::size_t>(i));
  BOOST_TEST(poison.size() >= 10u);
  std::size_t next = 0;
  std::size_t right = 0;
  std::vector<std::size_t> found;
  std::optional<par::Error> error;
  std::optional<par::MapSummary> summary;
  int item = 0;
  pool.map(
      [&]() -> std::optional<int> {
        if (item == count) return std::nullopt;
        return item++;
      },
      [&](std::size_t i, par::Result<int> r) {
        if (i != next++) BOOST_FAIL("not in order, or not once");
        if (r) {
          right += *r == (static_cast<int>(i) ^ 1);
        } else {
          found.push_back(i);
          error = r.error();
        }
      },
      [&](const par::MapSummary& s) { summary = s; });
  loop.run();
  BOOST_TEST(next == static_cast<std::size_t>(count));
  BOOST_TEST(found == poison, boost::test_tools::per_element());
  BOOST_TEST(right == count - poison.size());
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::child_killed));
  BOOST_REQUIRE(error->exit().has_value());
  BOOST_TEST(error->exit()->signal() == SIGSEGV);
  BOOST_TEST(summary->failed == poison.size());
}

BOOST_AUTO_TEST_CASE(an_item_that_is_not_repeatable_begins_once) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        ++shared->times[x];
        if (x == 55) ::raise(SIGKILL);
        return x ^ 21;
      },
      of(2));
  Received received(1000);
  par::MapOptions options;
  options.chunk = 10;
  options.repeatable = false;
  pool.map(numbers(1000), into(received), summary_of(received), std::move(options));
  loop.run();
  BOOST_TEST(received.each_once());
  BOOST_TEST(received.right == 990u);
  BOOST_REQUIRE(received.failed.size() == 10u);
  BOOST_TEST(received.failed.front() == 50u);
  BOOST_TEST(received.failed.back() == 59u);
  for (int i = 0; i < 1000; ++i) BOOST_TEST(shared->times[i] <= 1);
}

namespace {

// The items that fail if one of 200 never ends.
std::vector<std::size_t> too_slow(std::chrono::milliseconds deadline) {
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.deadline = deadline;
  options.child.grace = 20ms;
  auto pool = par::pool(
      loop,
      [](int x) {
        while (x == 77) ::pause();
        return x ^ 21;
      },
      options);
  Received received(200);
  par::MapOptions map;
  map.chunk = 50;
  pool.map(
      numbers(200),
      [&](std::size_t i, par::Result<int> r) {
        into(received)(i, r);
        if (!r) BOOST_TEST((r.error().code() == par::Errc::deadline));
      },
      summary_of(received), std::move(map));
  loop.run();
  BOOST_TEST(received.each_once());
  BOOST_TEST(received.right + received.failed.size() == 200u);
  BOOST_TEST(std::count(received.failed.begin(), received.failed.end(), 77u) == 1);
  return received.failed;
}

}  // namespace

BOOST_AUTO_TEST_CASE(an_item_that_takes_too_long_is_isolated) {
  // Repeated with more time if another item has missed its deadline: the machine may be slow.
  for (std::chrono::milliseconds deadline = 100ms; too_slow(deadline).size() > 1;) deadline *= 2;
}

BOOST_AUTO_TEST_CASE(a_map_whose_children_cannot_start_gets_the_reason) {
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.max_failed_starts = 2;
  options.child.on_start = [] { throw std::runtime_error("no licence"); };
  auto pool = par::pool(loop, mixed, options);
  Received received(100);
  pool.map(numbers(100), into(received), summary_of(received));
  loop.run();
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->stopped);
  BOOST_REQUIRE(received.summary->error.has_value());
  BOOST_TEST((received.summary->error->code() == par::Errc::unhealthy));
  BOOST_TEST(testing::has(received.summary->error->what(), "no licence"));
}

// ---- several at once, and their ends ----

BOOST_AUTO_TEST_CASE(two_maps_of_one_pool_take_turns) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        ::usleep(100);
        return x ^ 21;
      },
      of(1));
  Received first(400);
  Received second(400);
  std::vector<int> order;
  const auto chunks_of_ten = [] {
    par::MapOptions options;
    options.chunk = 10;
    return options;
  };
  pool.map(
      numbers(400),
      [&](std::size_t i, par::Result<int> r) {
        into(first)(i, r);
        if (i % 10 == 0) order.push_back(1);
      },
      summary_of(first), chunks_of_ten());
  pool.map(
      numbers(400),
      [&](std::size_t i, par::Result<int> r) {
        into(second)(i, r);
        if (i % 10 == 0) order.push_back(2);
      },
      summary_of(second), chunks_of_ten());
  loop.run();
  BOOST_TEST(first.right == 400u);
  BOOST_TEST(second.right == 400u);
  BOOST_REQUIRE(order.size() == 80u);
  int longest = 0;
  int row = 0;
  for (std::size_t i = 1; i < order.size(); ++i) {
    row = order[i] == order[i - 1] ? row + 1 : 0;
    longest = std::max(longest, row);
  }
  BOOST_TEST(longest <= 1);
}

BOOST_AUTO_TEST_CASE(calls_are_answered_while_a_map_runs) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        ::usleep(100);
        return x ^ 21;
      },
      of(1));
  Received received(2000);
  bool map_over = false;
  int answered_before = 0;
  pool.map(numbers(2000), into(received), [&](const par::MapSummary&) { map_over = true; });
  for (int i = 0; i < 20; ++i)
    pool.submit(i, [&](par::Result<int> r) { answered_before += r.has_value() && !map_over; });
  loop.run();
  BOOST_TEST(answered_before == 20);
  BOOST_TEST(received.right == 2000u);
}

BOOST_AUTO_TEST_CASE(a_map_of_higher_priority_goes_first) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(1));
  std::vector<int> ends;
  par::MapOptions high;
  high.priority = 1;
  Received first(5000);
  Received second(5000);
  pool.map(numbers(5000), into(first), [&](const par::MapSummary&) { ends.push_back(1); });
  pool.map(
      numbers(5000), into(second), [&](const par::MapSummary&) { ends.push_back(2); },
      std::move(high));
  loop.run();
  BOOST_TEST(ends == (std::vector<int>{2, 1}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(ten_million_inputs_need_little_memory) {
  // A sanitizer has an allocator of its own, which mallinfo2 does not count, and takes minutes.
  constexpr std::int64_t all = testing::sanitized ? 100000 : 10000000;
  const auto in_use = [] { return static_cast<std::int64_t>(::mallinfo2().uordblks); };
  par::Reactor loop;
  auto pool = par::pool<par::RawIo, par::RawIo>(
      loop, [](std::int64_t x) { return 2 * x; }, of(2));
  const std::int64_t before = in_use();
  std::int64_t most = 0;
  std::int64_t next = 0;
  std::int64_t sum = 0;
  std::int64_t came = 0;
  const auto generate = [&]() -> std::optional<std::int64_t> {
    if (next == all) return std::nullopt;
    return next++;
  };
  const auto fold = [&](std::int64_t& total, std::int64_t x) {
    total += x;
    if (++came % 10000 == 0) most = std::max(most, in_use() - before);
  };
  pool.reduce(generate, std::int64_t{0}, fold,
              [&](std::int64_t total, const par::MapSummary& summary) {
                sum = total;
                BOOST_TEST(summary.done == static_cast<std::size_t>(all));
              });
  loop.run();
  BOOST_TEST(sum == all * (all - 1));
  BOOST_TEST(most < std::int64_t{16} << 20);
}

// A chunk is never longer than the number of calls that a child may still execute.
BOOST_AUTO_TEST_CASE(children_are_replaced_while_they_map) {
  for (const std::size_t chunk : {std::size_t{0}, std::size_t{1}, std::size_t{7}}) {
    par::Reactor loop;
    par::PoolOptions options = of(2);
    options.max_calls = 50;
    auto pool = par::pool(
        loop, [](int x) { return std::make_pair(x, static_cast<int>(::getpid())); }, options);
    std::vector<int> items(2000);
    std::iota(items.begin(), items.end(), 0);
    std::map<int, std::size_t> items_of;
    std::size_t next = 0;
    std::size_t ends = 0;
    par::MapOptions how;
    how.chunk = chunk;
    pool.map(
        items,
        [&](std::size_t index, par::Result<std::pair<int, int>> r) {
          BOOST_TEST(index == next++);
          BOOST_REQUIRE(r.has_value());
          BOOST_TEST(r->first == static_cast<int>(index));
          ++items_of[r->second];
        },
        [&](const par::MapSummary& summary) {
          ++ends;
          BOOST_TEST(summary.done == 2000u);
          BOOST_TEST(summary.failed == 0u);
        },
        std::move(how));
    loop.run();
    BOOST_TEST(next == 2000u);
    BOOST_TEST(ends == 1u);
    BOOST_TEST(items_of.size() >= 40u);
    for (const auto& [pid, count] : items_of) BOOST_TEST(count <= 50u);
    BOOST_TEST(pool.stats().recycled >= 38u);
  }
}

BOOST_AUTO_TEST_CASE(a_map_may_be_cancelled_from_inside_and_outside) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.grace = 20ms;
  auto pool = par::pool(
      loop,
      [](int x) {
        ++shared->calls;
        ::usleep(200);
        return x ^ 21;
      },
      options);
  Received received(20000);
  par::MapHandle map;
  map = pool.map(
      numbers(20000),
      [&](std::size_t i, par::Result<int> r) {
        into(received)(i, r);
        if (i == 100) map.cancel();
      },
      summary_of(received));
  loop.run();
  BOOST_TEST(received.next == 101u);
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->stopped);
  BOOST_TEST(received.summary->done == 101u);
  BOOST_TEST(!received.summary->error.has_value());
  map.cancel();  // has no effect

  Received other(20000);
  map = pool.map(numbers(20000), into(other), summary_of(other));
  map.cancel();
  BOOST_TEST(!other.summary.has_value());
  loop.run();
  BOOST_TEST(other.next == 0u);
  BOOST_TEST(other.summary->stopped);
  BOOST_TEST(map.progress().done == 0u);

  // The pool still works.
  Received again(100);
  pool.map(numbers(100), into(again), summary_of(again));
  loop.run();
  BOOST_TEST(again.right == 100u);
  BOOST_TEST(shared->calls < 20000);
}

BOOST_AUTO_TEST_CASE(a_pool_may_be_destroyed_while_it_maps) {
  par::Reactor loop;
  auto pool = std::make_unique<par::Pool<int(int)>>(par::pool(loop, mixed, of(2)));
  Received received(20000);
  pool->map(
      numbers(20000),
      [&](std::size_t i, par::Result<int> r) {
        into(received)(i, r);
        if (i == 1000) pool.reset();
      },
      summary_of(received));
  loop.run();
  BOOST_TEST(received.next == 1001u);
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->stopped);
}

BOOST_AUTO_TEST_CASE(close_lets_a_map_finish_and_shutdown_does_not) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received(20000);
  pool.map(numbers(20000), into(received), summary_of(received));
  pool.close();
  BOOST_CHECK_THROW(pool.map(numbers(1), into(received), summary_of(received)), std::logic_error);
  loop.run();
  BOOST_TEST(received.right == 20000u);

  auto other = par::pool(
      loop,
      [](int x) {
        ::usleep(100);
        return x ^ 21;
      },
      of(2));
  Received stopped(20000);
  other.map(
      numbers(20000),
      [&](std::size_t i, par::Result<int> r) {
        into(stopped)(i, r);
        if (i == 50) other.shutdown(1h);
      },
      summary_of(stopped));
  loop.run();
  BOOST_REQUIRE(stopped.summary.has_value());
  BOOST_TEST(stopped.summary->stopped);
  BOOST_TEST(stopped.in_order);
  BOOST_TEST(stopped.right == stopped.next);
  BOOST_TEST(stopped.next < 20000u);
}

BOOST_AUTO_TEST_CASE(a_reactor_may_be_destroyed_while_a_map_runs) {
  par::Pool<int(int)> pool;
  par::MapHandle map;
  Received received(20000);
  {
    par::Reactor loop;
    pool = par::pool(loop, mixed, of(2));
    map = pool.map(
        numbers(20000),
        [&](std::size_t i, par::Result<int> r) {
          into(received)(i, r);
          if (i == 100) loop.stop();
        },
        summary_of(received));
    loop.run();
  }
  map.cancel();
  BOOST_TEST(received.next == 101u);
  BOOST_TEST(!received.summary.has_value());
}

// ---- progress ----

BOOST_AUTO_TEST_CASE(a_map_reports_its_progress) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x % 100 == 0) throw std::runtime_error("hundred");
        while (x == 1999 && !shared->open) ::usleep(100);  // until progress was reported
        return x ^ 21;
      },
      of(2));
  Received received(2000);
  std::vector<par::Progress> all;
  par::MapOptions options;
  options.progress_every = 0ms;  // otherwise all items may be done before the first report
  options.on_progress = [&](const par::Progress& p) {
    all.push_back(p);
    shared->open = true;
  };
  const par::MapHandle map =
      pool.map(numbers(2000), into(received), summary_of(received), std::move(options));
  BOOST_TEST(map.progress().total == 2000u);
  loop.run();
  BOOST_REQUIRE(all.size() >= 2u);
  std::size_t before = 0;
  for (const par::Progress& p : all) {
    BOOST_TEST(p.done >= before);
    before = p.done;
    BOOST_TEST(p.total == 2000u);
    BOOST_TEST(p.rate >= 0);
  }
  BOOST_TEST(all.back().done == 2000u);
  BOOST_TEST(all.back().failed == 20u);
}

BOOST_AUTO_TEST_CASE(a_range_of_unknown_size_is_mapped) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(1));
  const auto go = [&](std::optional<std::size_t> total) {
    Received received(100);
    int next = 0;
    par::MapOptions options;
    options.total = total;
    const par::MapHandle map = pool.map(
        [&]() -> std::optional<int> {
          if (next == 100) return std::nullopt;
          return next++;
        },
        into(received), summary_of(received), std::move(options));
    BOOST_TEST(map.progress().total == total.value_or(0));
    loop.run();
    BOOST_TEST(received.right == 100u);
  };
  go(std::nullopt);
  go(100);
  go(10);  // wrong, without consequences
  go(1000);
}

BOOST_AUTO_TEST_CASE(a_reduce_folds_all_results) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x == 500) throw std::runtime_error("no");
        return std::to_string(x % 10);
      },
      of(2));
  std::string text;
  std::size_t failed = 0;
  pool.reduce(
      numbers(1000), std::string(), [](std::string& all, const std::string& one) { all += one; },
      [&](std::string all, const par::MapSummary& summary) {
        text = std::move(all);
        failed = summary.failed;
      });
  loop.run();
  BOOST_TEST(failed == 1u);
  std::string expected;
  for (int i = 0; i < 1000; ++i)
    if (i != 500) expected += std::to_string(i % 10);
  BOOST_TEST(text == expected);
}
