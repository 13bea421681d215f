// pool.cpp - ranges whose begin and end are no members, and iterators that cannot be copied, did not compile in a map;
// and items were cast to the argument of the pool's function.
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#if __cplusplus >= 202002L
#include <ranges>
#endif

namespace par = evparallel;

void testing_main_init() {
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
