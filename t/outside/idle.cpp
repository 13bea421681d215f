// idle.cpp - the cost of idle children for the program, with the public interface; and their replacement at their
// maximum age.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <event2/event.h>
#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <set>

namespace par = evparallel;
using namespace std::chrono_literals;

void testing_main_init() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  testing::take_default_snapshot();
}

namespace {

constexpr std::size_t many = 1000;

std::int64_t same(std::int64_t x) {
  return x;
}

double memory_in_use() {
  return static_cast<double>(::mallinfo2().uordblks);
}

// True: shown as skipped; the caller returns then.  A search for leaks in a thousand children takes a minute, too.
bool skipped_unknown_memory() {
  if (testing::sanitized) testing::skip("what a sanitizer allocates is not in mallinfo2");
  return testing::sanitized;
}

// Makes the allocations that happen once, including memory that the loop keeps for many calls at the same time.
void warm_up(par::Reactor& loop) {
  std::vector<par::Remote<std::int64_t(std::int64_t)>> remotes;
  std::int64_t answers = 0;
  for (int i = 0; i < 20; ++i) {
    remotes.push_back(par::run<par::RawIo, par::RawIo>(loop, same));
    remotes.back()(1, [&](par::Result<std::int64_t> r) { answers += r.value(); });
  }
  loop.run();
  BOOST_TEST(answers == 20);
}

template <class P>
std::size_t ready(const P& pool) {
  const par::PoolStats stats = pool.stats();
  return static_cast<std::size_t>(std::count_if(stats.workers.begin(), stats.workers.end(),
                                                [](const auto& one) { return one.ready; }));
}

template <class P>
std::set<pid_t> pids(const P& pool) {
  std::set<pid_t> pids;
  for (const auto& worker : pool.stats().workers)
    if (worker.ready) pids.insert(worker.pid);
  return pids;
}

// An idle pool does not hold the loop; this timer does, for a moment.
void turn(par::Reactor& loop) {
  const par::Timer moment = loop.after(1ms, [] {});
  loop.run_for(1ms);
}

// The time to the first timeout for which the base would wake up by itself.
std::chrono::microseconds next_timeout(event_base* base) {
  struct Search {
    timeval now;
    std::chrono::microseconds next;
  } search{{}, std::chrono::microseconds::max()};
  ::event_base_gettimeofday_cached(base, &search.now);
  ::event_base_foreach_event(
      base,
      [](const event_base*, const event* one, void* to) {
        auto& found = *static_cast<Search*>(to);
        timeval at{};
        if (!::event_pending(one, EV_TIMEOUT, &at)) return 0;
        const auto left = std::chrono::seconds(at.tv_sec - found.now.tv_sec) +
                          std::chrono::microseconds(at.tv_usec - found.now.tv_usec);
        found.next = std::min<std::chrono::microseconds>(found.next, left);
        return 0;
      },
      &search);
  return search.next;
}

template <class P>
void answer_ten(par::Reactor& loop, P& pool) {
  int answers = 0;
  for (int i = 0; i < 10; ++i)
    pool.submit(i, [&](par::Result<int> r) { answers += r.has_value(); });
  loop.run();
  BOOST_TEST(answers == 10);
}

}  // namespace

// ---- memory ----

BOOST_AUTO_TEST_CASE(an_idle_pool_child_uses_little_memory_of_the_program) {
  if (skipped_unknown_memory()) return;
  par::Reactor loop;
  warm_up(loop);
  const double before = memory_in_use();
  par::PoolOptions options;
  options.workers = options.min_workers = many;
  const auto pool = par::pool<par::RawIo, par::RawIo>(loop, same, options);
  const auto all_are_ready = [&] {
    loop.run_for(20ms);
    turn(loop);
    return ready(pool) == many;
  };
  BOOST_TEST(testing::eventually(all_are_ready));
  BOOST_TEST((memory_in_use() - before) / many <= 1024);
}

BOOST_AUTO_TEST_CASE(an_idle_remote_function_uses_little_memory_of_the_program) {
  if (skipped_unknown_memory()) return;
  par::Reactor loop;
  warm_up(loop);
  std::vector<par::Remote<std::int64_t(std::int64_t)>> remotes;
  remotes.reserve(many);
  std::size_t right = 0;
  const double before = memory_in_use();
  for (std::size_t i = 0; i < many; ++i) {
    const auto number = static_cast<std::int64_t>(i);
    remotes.push_back(par::run<par::RawIo, par::RawIo>(loop, same));
    remotes.back()(number,
                   [&right, number](par::Result<std::int64_t> r) { right += r.value() == number; });
    if (remotes.size() % 50 == 0) loop.run();
  }
  BOOST_TEST(right == many);
  BOOST_TEST((memory_in_use() - before) / many <= 1024);
}

// They share only their function: each child gets its own settings.
BOOST_AUTO_TEST_CASE(different_remotes_share_no_settings) {
  par::Reactor loop;
  const auto variable = [](std::string name) {
    const char* value = ::getenv(name.c_str());
    return std::string(value ? value : "");
  };
  par::Options options;
  std::vector<par::Remote<std::string(std::string)>> remotes;
  for (const char* value : {"a", "a", "b", "", "a"}) {
    options.env["VALUE"] = value;
    remotes.push_back(par::run(loop, variable, options));
  }
  std::string answers;
  for (auto& remote : remotes)
    remote("VALUE", [&](par::Result<std::string> r) {
      BOOST_TEST(r.value().size() <= 1u);
      answers += r->empty() ? "-" : *r;
    });
  loop.run();
  std::sort(answers.begin(), answers.end());
  BOOST_TEST(answers == "-aaab");
  // Remotes of two functions, or of one function with another capture, are separate, too.
  int sum = 0;
  std::vector<par::Remote<int(int)>> adders;
  for (const int n : {1, 1, 20}) adders.push_back(par::run(loop, [n](int x) { return x + n; }));
  for (auto& adder : adders) adder(100, [&](par::Result<int> r) { sum += r.value(); });
  loop.run();
  BOOST_TEST(sum == 322);
}

// ---- processor time ----

BOOST_AUTO_TEST_CASE(an_idle_pool_never_wakes_the_program) {
  const std::unique_ptr<event_base, void (*)(event_base*)> base(::event_base_new(),
                                                                &::event_base_free);
  par::Reactor loop(base.get());
  loop.on_exception([](std::exception_ptr) { std::terminate(); });
  par::PoolOptions options;
  options.workers = options.min_workers = 8;
  options.max_rss_growth = std::size_t{1} << 30;
  options.max_age = options.idle_timeout = 1h;
  auto pool = par::pool<par::RawIo, par::RawIo>(loop, same, options);
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < 100; ++i)
    pool.submit(i, [&](par::Result<std::int64_t> r) { sum += r.value(); });
  while (ready(pool) < 8 || pool.pending() > 0) ::event_base_loop(base.get(), EVLOOP_ONCE);
  BOOST_TEST(sum == 4950);

  // The number of turns of the loop until something else wakes it.
  const auto turns_until_bell = [&] {
    bool rung = false;
    const timeval time{0, 50000};
    const auto ring = [](int, short, void* flag) { *static_cast<bool*>(flag) = true; };
    ::event_base_once(base.get(), -1, EV_TIMEOUT, ring, &rung, &time);
    int turns = 0;
    while (!rung) {
      ::event_base_loop(base.get(), EVLOOP_ONCE);
      ++turns;
    }
    return turns;
  };
  BOOST_TEST(testing::eventually([&] { return turns_until_bell() == 1; }));
  BOOST_TEST((next_timeout(base.get()) > 30min));  // that of their age
}

// ---- age ----

BOOST_AUTO_TEST_CASE(kept_idle_children_are_replaced_when_they_are_old) {
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = options.min_workers = 2;
  options.max_age = 30ms;
  auto pool = par::pool(
      loop, [](int x) { return x; }, options);
  // Two children ran at the same time, and both were replaced.
  std::set<pid_t> seen;
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    seen.merge(pids(pool));
    return seen.size() >= 4 && pool.stats().recycled >= 2;
  }));
  int answer = 0;
  pool.submit(5, [&](par::Result<int> r) { answer = r.value(); });
  loop.run();
  BOOST_TEST(answer == 5);
}

BOOST_AUTO_TEST_CASE(unneeded_idle_children_end_when_they_are_old) {
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 2;
  options.idle_timeout = 0ms;
  options.max_age = 20ms;
  auto pool = par::pool(
      loop, [](int x) { return x; }, options);
  answer_ten(loop, pool);
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    return pool.stats().workers.empty();
  }));
}

// A child that is too old before it has started, and a child that was to replace another one but is not needed.
BOOST_AUTO_TEST_CASE(slowly_starting_children_are_replaced_when_they_are_old) {
  for (const unsigned kept : {1U, 0U}) {
    par::Reactor loop;
    par::PoolOptions options;
    options.workers = 2;
    options.min_workers = kept;
    options.idle_timeout = 0ms;
    options.max_age = 5ms;
    options.child.on_start = [] { ::poll(nullptr, 0, 20); };  // longer than its maximum age
    auto pool = par::pool(
        loop, [](int x) { return x; }, options);
    answer_ten(loop, pool);
    const std::set<pid_t> first = pids(pool);
    BOOST_TEST(testing::eventually([&] {
      turn(loop);
      if (kept == 0) return pool.stats().workers.empty();
      const std::set<pid_t> now = pids(pool);
      return !now.empty() &&
             std::none_of(now.begin(), now.end(), [&](pid_t pid) { return first.count(pid) > 0; });
    }));
  }
}
