// pool.cpp - ranges whose begin and end are no members, and iterators that cannot be copied, did not compile in a map;
// items were cast to the argument of the pool's function; a start task that hung took its child out for good, and one
// that threw each time was an overload; the limit of processor time of a child ended the innocent call that reached it;
// kept children of a stopped snapshot were started without a pause; a replaced child whose calls were all taken back did
// not end.
#include "calling.hpp"
#include "errors.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if __cplusplus >= 202002L
#include <ranges>
#endif

namespace par = evparallel;
using namespace std::chrono_literals;

namespace {

struct Board {
  std::atomic<int> starts{0};
};
Board* board = nullptr;

}  // namespace

void testing_main_init() {
  board = &testing::shared<Board>();
  par::init();
  testing::expect_child(par::default_snapshot().pid());
}

namespace theirs {

// n, n - 1, ..., 1: begin and end are found by argument-dependent lookup; the iterator has no category, and cannot be
// copied; the end has another type.
struct Countdown {
  int n;
};
struct Ended {};
class Counter {
public:
  explicit Counter(int n) : n_(n) {}
  Counter(Counter&&) = default;
  Counter& operator=(Counter&&) = default;
  int operator*() const { return n_; }
  Counter& operator++() {
    --n_;
    return *this;
  }
  friend bool operator!=(const Counter& counter, Ended) { return counter.n_ > 0; }

private:
  int n_;
};
Counter begin(const Countdown& countdown) {
  return Counter(countdown.n);
}
Ended end(const Countdown&) {
  return {};
}

// It has members, which take precedence.
struct Both : std::vector<int> {
  using vector::vector;
};
int* begin(Both&);
int* end(Both&);

}  // namespace theirs

namespace {

// The results for the items of a range.
template <class Out, class R>
std::multiset<Out> mapped(R&& range) {
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 1;
  auto pool = par::pool(
      loop, [](const Out& item) { return item; }, options);
  std::multiset<Out> back;
  pool.map(
      std::forward<R>(range), [&](std::size_t, par::Result<Out> r) { back.insert(r.value()); },
      [](const par::MapSummary&) {});
  loop.run();
  return back;
}

// A directory with these files, for the duration of the case.
class Directory {
public:
  explicit Directory(const std::vector<std::string>& names) {
    char name[] = "/tmp/evparallel-XXXXXX";
    BOOST_REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
    for (const std::string& file : names) std::ofstream(path / file) << file;
  }
  ~Directory() { std::filesystem::remove_all(path); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  std::filesystem::path path{};
};

}  // namespace

BOOST_AUTO_TEST_CASE(the_entries_of_a_directory_are_mapped) {
  using std::filesystem::path;
  const Directory directory({"a", "b", "c"});
  const std::multiset<path> all{directory.path / "a", directory.path / "b", directory.path / "c"};
  BOOST_TEST((mapped<path>(std::filesystem::directory_iterator(directory.path)) == all));
  BOOST_TEST((mapped<path>(std::filesystem::recursive_directory_iterator(directory.path)) == all));
  std::filesystem::directory_iterator kept(directory.path);
  BOOST_TEST((mapped<path>(kept) == all));
}

BOOST_AUTO_TEST_CASE(a_range_by_argument_dependent_look_up_is_mapped) {
  BOOST_TEST((mapped<int>(theirs::Countdown{3}) == std::multiset<int>{1, 2, 3}));
  const theirs::Countdown kept{2};
  BOOST_TEST((mapped<int>(kept) == std::multiset<int>{1, 2}));
}

BOOST_AUTO_TEST_CASE(members_come_before_argument_dependent_look_up) {
  theirs::Both both{4, 5};
  BOOST_TEST((mapped<int>(both) == std::multiset<int>{4, 5}));
}

BOOST_AUTO_TEST_CASE(an_array_is_mapped) {
  const int numbers[] = {7, 8};
  BOOST_TEST((mapped<int>(numbers) == std::multiset<int>{7, 8}));
}

BOOST_AUTO_TEST_CASE(a_range_of_one_pass_is_mapped) {
#if __cplusplus >= 202002L
  std::istringstream text("1 2 3");
  BOOST_TEST((mapped<int>(std::views::istream<int>(text)) == std::multiset<int>{1, 2, 3}));
  const std::vector<int> numbers{1, 2, 3, 4};
  const auto few = numbers | std::views::take_while([](int n) { return n < 3; });
  BOOST_TEST((mapped<int>(few) == std::multiset<int>{1, 2}));
#else
  testing::skip("ranges came with C++20");
#endif
}

namespace {

// Keeps which of its constructors was called.
struct Measure {
  explicit Measure(int) : by_cast(true) {}
  Measure(long) : by_cast(false) {}
  bool by_cast;
};

// The answers of `f` for the items of a range.
template <class F, class R>
auto answers_of(F f, R&& range) {
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 1;
  auto pool = par::pool<par::RawIo, par::RawIo>(loop, f, options);
  using Answer = typename decltype(pool)::result_type;
  std::vector<typename Answer::value_type> back;
  pool.map(
      std::forward<R>(range), [&](std::size_t, Answer r) { back.push_back(r.value()); },
      [](const par::MapSummary&) {});
  loop.run();
  return back;
}

// Gives the items one by one.
template <class T>
auto one_by_one(std::vector<T> items) {
  return [items = std::move(items), next = std::size_t{0}]() mutable -> std::optional<T> {
    if (next == items.size()) return std::nullopt;
    return items[next++];
  };
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_items_of_a_map_are_converted_as_in_a_call) {
  const auto measured = [](Measure m) { return m.by_cast ? 1 : 0; };
  const std::vector<int> items{1, 2};
  const std::vector<int> by_call{0, 0};
  BOOST_TEST(answers_of(measured, items) == by_call, boost::test_tools::per_element());
  BOOST_TEST(answers_of(measured, one_by_one(items)) == by_call, boost::test_tools::per_element());
  const auto halved = [](double x) { return x / 2; };
  const std::vector<double> halves{0.5, 1};
  BOOST_TEST(answers_of(halved, items) == halves, boost::test_tools::per_element());
  BOOST_TEST(answers_of(halved, one_by_one(items)) == halves, boost::test_tools::per_element());
  const std::vector<const char*> words{"a", "bc"};
  BOOST_TEST((mapped<std::string>(words) == std::multiset<std::string>{"a", "bc"}));
  BOOST_TEST((mapped<std::string>(one_by_one(words)) == std::multiset<std::string>{"a", "bc"}));
  BOOST_TEST((mapped<bool>(std::vector<bool>{true, false}) == std::multiset<bool>{false, true}));
}

namespace {

// Rvalues of what somebody else owns.
struct Moving {
  std::vector<par::Fd>* owned;
  auto begin() const { return std::make_move_iterator(owned->begin()); }
  auto end() const { return std::make_move_iterator(owned->end()); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_map_moves_rvalues_and_leaves_all_other_items) {
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 1;
  auto pool = par::pool(
      loop, [](const par::Fd& fd) { return static_cast<bool>(fd); }, options);
  std::vector<par::Fd> owned;
  owned.push_back(par::Fd::dup(0));
  int right = 0;
  const auto on_result = [&](std::size_t, par::Result<bool> r) { right += r.value(); };
  const auto on_done = [](const par::MapSummary&) {};
  std::size_t next = 0;
  pool.map([&] { return next < owned.size() ? &owned[next++] : nullptr; }, on_result, on_done);
  loop.run();
  BOOST_TEST(owned.front().get() >= 0);
  pool.map(owned, on_result, on_done);
  loop.run();
  BOOST_TEST(owned.front().get() >= 0);
  pool.map(Moving{&owned}, on_result, on_done);
  loop.run();
  BOOST_TEST(owned.front().get() == -1);
  BOOST_TEST(right == 3);
}

// ---- starts that fail ----

namespace {

int plus_one(int x) {
  return x + 1;
}

par::PoolOptions one_child(par::StartTask on_start) {
  board->starts = 0;
  par::PoolOptions options;
  options.workers = 1;
  options.child.on_start = std::move(on_start);
  options.child.start_timeout = 3s;  // a start that does not hang takes less on a busy machine, too
  return options;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_start_task_that_hangs_takes_no_child_out) {
  par::Reactor loop;
  auto pool = par::pool(loop, plus_one, one_child([] {
                          if (++board->starts == 1) ::pause();
                        }));
  int answer = 0;
  pool.submit(1, [&](par::Result<int> r) { answer = r.value_or(-1); });
  loop.run();
  BOOST_TEST(answer == 2);
  BOOST_TEST(board->starts == 2);
}

BOOST_AUTO_TEST_CASE(a_start_task_that_hangs_each_time_fails_the_calls) {
  par::Reactor loop;
  par::PoolOptions options = one_child([] { ::pause(); });
  options.max_failed_starts = 2;
  auto pool = par::pool(loop, plus_one, options);
  std::vector<par::Error> errors;
  for (int i = 0; i < 2; ++i)
    pool.submit(i, [&](par::Result<int> r) {
      if (!r) errors.push_back(r.error());
    });
  loop.run();
  BOOST_REQUIRE(errors.size() == 2u);
  for (const par::Error& error : errors) {
    BOOST_TEST((error.code() == par::Errc::unhealthy));
    BOOST_TEST((error.delivery() == par::Delivery::not_sent));
    BOOST_TEST(testing::has(error.what(), "Options::start_timeout"));
    BOOST_REQUIRE(error.exit().has_value());
    BOOST_TEST((error.exit()->cause == par::Cause::start_timeout));
  }
}

BOOST_AUTO_TEST_CASE(
    a_start_task_that_throws_each_time_makes_the_pool_unhealthy_until_it_does_not) {
  par::Reactor loop;
  par::PoolOptions options = one_child([] {
    if (++board->starts <= 2) throw std::runtime_error("no licence");
  });
  options.max_failed_starts = 2;
  auto pool = par::pool(loop, plus_one, options);
  std::optional<par::Error> error;
  pool.submit(1, [&](par::Result<int> r) {
    if (!r) error = r.error();
  });
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::unhealthy));
  BOOST_TEST(par::to_string(error->code()) == std::string("unhealthy"));
  BOOST_TEST(error->remote_type() == "std::runtime_error");
  BOOST_TEST(testing::has(error->what(), "no licence"));
  BOOST_REQUIRE(error->exit().has_value());
  BOOST_TEST(error->exit()->code() == 70);
  // After the pause the pool tries once more.
  BOOST_TEST(testing::eventually([&] {
    int answer = 0;
    pool.submit(1, [&](par::Result<int> r) { answer = r.value_or(-1); });
    loop.run();
    return answer == 2;
  }));
}

// ---- processor time ----

namespace {

int burn_and_return(int ms) {
  testing::burn(std::chrono::milliseconds(ms));
  return ms;
}

par::PoolOptions limited(std::chrono::seconds life, std::chrono::seconds call) {
  par::PoolOptions options;
  options.workers = 1;
  options.child.limits.cpu = life;
  options.child.limits.cpu_per_call = call;
  return options;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_child_is_replaced_before_its_processor_time_is_used_up) {
  par::Reactor loop;
  // The limit is many times what a call needs: the processor time of a virtual machine may jump.
  auto pool = par::pool(loop, burn_and_return, limited(2s, 0s));
  int values = 0;
  constexpr int calls = 40;
  for (int i = 0; i < calls; ++i)
    pool.submit(120, [&](par::Result<int> r) { values += r.has_value(); });
  loop.run();
  BOOST_TEST(values == calls);
  BOOST_TEST(pool.stats().recycled >= 2u);
  BOOST_TEST(pool.stats().respawned == 0u);
}

BOOST_AUTO_TEST_CASE(a_child_keeps_processor_time_for_one_call_more) {
  par::Reactor loop;
  auto pool = par::pool(loop, burn_and_return, limited(2s, 1s));
  int values = 0;
  // Many short ones say nothing about the long one that may follow.
  for (int i = 0; i < 6; ++i) {
    pool.submit(200, [&](par::Result<int> r) { values += r.has_value(); });
    if (i % 3 == 2) pool.submit(900, [&](par::Result<int> r) { values += r.has_value(); });
  }
  loop.run();
  BOOST_TEST(values == 8);
}

BOOST_AUTO_TEST_CASE(each_item_of_a_chunk_has_processor_time_of_its_own) {
  par::Reactor loop;
  auto pool = par::pool(loop, burn_and_return, limited(0s, 1s));
  par::MapOptions chunks;
  chunks.chunk = 5;
  int values = 0;
  pool.map(
      std::vector<int>(5, 350), [&](std::size_t, par::Result<int> r) { values += r.has_value(); },
      [](const par::MapSummary&) {}, std::move(chunks));
  loop.run();
  BOOST_TEST(values == 5);
  BOOST_TEST(pool.stats().started == 1u);
}

// ---- children that are kept ----

BOOST_AUTO_TEST_CASE(a_pool_without_a_snapshot_does_not_start_its_kept_children_again_and_again) {
  par::Snapshot snapshot;
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = options.min_workers = 2;
  options.snapshots = {&snapshot};
  auto pool = par::pool(
      loop, [](int x) { return x; }, options);
  snapshot.stop();
  testing::turn(loop, 50);
  BOOST_TEST(pool.stats().started <= 2u);
  BOOST_TEST((pool.wait(1).error().code() == par::Errc::no_snapshot));
}

// ---- replaced children ----

BOOST_AUTO_TEST_CASE(a_replaced_child_ends_when_all_its_calls_were_taken_back) {
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 1;
  auto pool = par::pool(
      loop, [](int) { return static_cast<int>(::getpid()); }, options);
  pid_t old = 0;
  for (int i = 0; i < 100; ++i) old = pool.wait(i).value();  // calls are short: they are sent ahead
  BOOST_TEST(::kill(old, SIGSTOP) == 0);
  BOOST_TEST(testing::eventually([&] { return testing::state_of(old) == 'T'; }));
  int answers = 0;
  for (int i = 0; i < 5; ++i) pool.submit(i, [&](par::Result<int> r) { answers += r.value() > 0; });
  bool replaced = false;
  pool.replace();
  pool.on_replaced([&](par::Result<void> r) { replaced = r.has_value(); });
  // A single call that was sent to the old child stays there.
  BOOST_TEST(testing::loop_until(loop, [&] { return answers >= 4; }));
  BOOST_TEST(!replaced);
  BOOST_TEST(::kill(old, SIGCONT) == 0);
  BOOST_TEST(testing::loop_until(loop, [&] { return replaced && answers == 5; }));
  BOOST_TEST(testing::gone(old));
}
