// pool_life.cpp - the life of a pool, with the public interface: ready, closed, its children, and their replacement.
#include "calling.hpp"
#include "errors.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;
using Kind = par::WorkerEvent::Kind;

namespace {

// Memory that the children of a case share with it.
struct Shared {
  std::atomic<int> starts{0};
  std::atomic<int> good_starts{0};  // that are still to come; then starts fail
  std::atomic<int> calls{0};
  std::atomic<bool> open{false};
};
Shared* shared = nullptr;
std::unique_ptr<par::Snapshot> second_snapshot;

// Set before the snapshots: a child can report which one forked it.
int which_snapshot = 0;

}  // namespace

void testing_main_init() {
  shared = &testing::shared<Shared>();
  which_snapshot = 1;
  testing::take_default_snapshot();
  which_snapshot = 2;
  second_snapshot = std::make_unique<par::Snapshot>();
  testing::expect_child(second_snapshot->pid());
}

namespace {

void reset() {
  new (shared) Shared;
}

par::PoolOptions of(unsigned workers, unsigned kept = 0) {
  par::PoolOptions options;
  options.workers = workers;
  options.min_workers = kept;
  return options;
}

int square(int x) {
  return x * x;
}

int pid_of(int) {
  return static_cast<int>(::getpid());
}

// Old and new functions: which one answered, and in which process.
using Answer = std::pair<int, int>;
Answer old_function(int) {
  ++shared->calls;
  return {1, static_cast<int>(::getpid())};
}
Answer new_function(int) {
  ++shared->calls;
  return {2, static_cast<int>(::getpid())};
}

// Returns once the case has opened the gate.
Answer old_behind_gate(int) {
  ++shared->calls;
  while (!shared->open) ::usleep(100);
  return {1, static_cast<int>(::getpid())};
}

// Some starts are good, all others fail.
void start_if_good() {
  if (--shared->good_starts < 0) throw std::runtime_error("broken start");
}

// What a callback of on_ready or on_replaced has received.
struct Outcome {
  int calls = 0;
  std::optional<par::Error> error{};

  auto callback() {
    return [this](par::Result<void> r) {
      ++calls;
      if (!r) error = r.error();
    };
  }
  bool good() const { return calls == 1 && !error; }
  bool failed(par::Errc code) const { return calls == 1 && error && error->code() == code; }
};

template <class P>
std::set<pid_t> ready_pids(const P& pool) {
  std::set<pid_t> pids;
  for (const auto& worker : pool.stats().workers)
    if (worker.ready && worker.pid > 0) pids.insert(worker.pid);
  return pids;
}

// The events of the children of a pool.
struct Log {
  std::vector<par::WorkerEvent> events;

  auto callback() {
    return [this](const par::WorkerEvent& event) { events.push_back(event); };
  }
  std::size_t count(Kind kind) const {
    return static_cast<std::size_t>(
        std::count_if(events.begin(), events.end(),
                      [kind](const par::WorkerEvent& one) { return one.kind == kind; }));
  }
  std::vector<Kind> kinds_of(pid_t pid) const {
    std::vector<Kind> kinds;
    for (const auto& one : events)
      if (one.pid == pid) kinds.push_back(one.kind);
    return kinds;
  }
  const par::WorkerEvent* end_of(pid_t pid) const {
    for (const auto& one : events)
      if (one.pid == pid && one.kind == Kind::ended) return &one;
    return nullptr;
  }
};

const std::vector<Kind> whole_life = {Kind::started, Kind::ready, Kind::ended};

// Makes all children of the pool ready, and returns their pids.
template <class P>
std::set<pid_t> made_ready(par::Reactor& loop, P& pool) {
  Outcome ready;
  pool.on_ready(ready.callback());
  loop.run();
  BOOST_REQUIRE(ready.good());
  // A child may be ready before its pid is known.
  const auto known = [&] {
    const std::vector<par::PoolStats::Worker> workers = pool.stats().workers;
    return std::all_of(workers.begin(), workers.end(), [](const auto& one) { return one.pid > 0; });
  };
  BOOST_TEST(testing::loop_until(loop, known));
  return ready_pids(pool);
}

template <class P>
Answer answer_of(P& pool) {
  return pool.wait(0).value();
}

}  // namespace

// ---- ready ----

BOOST_AUTO_TEST_CASE(on_ready_is_called_when_all_kept_children_are_ready) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(4, 3);
  options.child.on_start = [] { ++shared->starts; };
  auto pool = par::pool(loop, square, options);
  int starts = -1;
  std::size_t ready = 0;
  pool.on_ready([&](par::Result<void> r) {
    r.value();
    starts = shared->starts;
    for (const auto& worker : pool.stats().workers) ready += worker.ready;
  });
  BOOST_TEST(starts == -1);  // never from inside the call
  loop.run();
  BOOST_TEST(starts == 3);
  BOOST_TEST(ready == 3u);
}

BOOST_AUTO_TEST_CASE(on_ready_starts_one_child_of_a_pool_that_keeps_none) {
  par::Reactor loop;
  auto pool = par::pool(loop, square, of(4));
  loop.run();
  BOOST_TEST(pool.stats().started == 0u);
  Outcome ready;
  pool.on_ready(ready.callback());
  loop.run();
  BOOST_TEST(ready.good());
  BOOST_TEST(pool.stats().started == 1u);
  BOOST_TEST(pool.wait(3).value() == 9);
  BOOST_TEST(pool.stats().started == 1u);
}

BOOST_AUTO_TEST_CASE(on_ready_of_a_ready_pool_is_called_soon) {
  par::Reactor loop;
  auto pool = par::pool(loop, square, of(2));
  BOOST_TEST(pool.wait(3).value() == 9);
  Outcome first;
  Outcome second;
  pool.on_ready(first.callback());
  pool.on_ready(second.callback());
  BOOST_TEST(first.calls == 0);
  loop.run();
  BOOST_TEST(first.good());
  BOOST_TEST(second.good());
  BOOST_TEST(pool.stats().started == 1u);
  loop.run();
  BOOST_TEST(first.calls == 1);
}

BOOST_AUTO_TEST_CASE(on_ready_gets_the_error_of_children_that_cannot_start) {
  for (const unsigned kept : {0u, 3u}) {
    reset();
    par::Reactor loop;
    par::PoolOptions options = of(4, kept);
    options.child.on_start = start_if_good;
    options.max_failed_starts = 2;
    auto pool = par::pool(loop, square, options);
    Outcome ready;
    pool.on_ready(ready.callback());
    loop.run();
    BOOST_REQUIRE(ready.failed(par::Errc::unhealthy));
    BOOST_TEST(testing::has(ready.error->what(), "broken start"));

    // It is asked again until the starts are good.
    shared->good_starts = 1000;
    Outcome again;
    BOOST_TEST(testing::loop_until(loop, [&] {
      if (again.good()) return true;
      again = Outcome();
      pool.on_ready(again.callback());
      loop.run();
      return again.good();
    }));
    BOOST_TEST(pool.wait(3).value() == 9);
  }
}

BOOST_AUTO_TEST_CASE(on_ready_gets_the_error_of_a_stopped_snapshot) {
  for (const unsigned kept : {0u, 2u}) {
    par::Snapshot snapshot;
    par::Reactor loop;
    par::PoolOptions options = of(2, kept);
    options.snapshots = {&snapshot};
    auto pool = par::pool(loop, square, options);
    snapshot.stop();
    Outcome ready;
    pool.on_ready(ready.callback());
    loop.run();
    BOOST_TEST(ready.failed(par::Errc::no_snapshot));
    Outcome again;
    pool.on_ready(again.callback());
    loop.run();
    BOOST_TEST(again.failed(par::Errc::no_snapshot));
  }
}

BOOST_AUTO_TEST_CASE(on_ready_is_cancelled_when_the_pool_ends_before) {
  par::Reactor loop;
  Outcome closed;
  Outcome closed_late;
  Outcome shut_down;
  Outcome dropped;
  auto first = par::pool(loop, square, of(2, 2));
  auto second = par::pool(loop, square, of(2, 2));
  first.on_ready(closed.callback());
  first.close();
  first.on_ready(closed_late.callback());
  second.on_ready(shut_down.callback());
  second.shutdown(0ms);
  {
    auto third = par::pool(loop, square, of(2, 2));
    third.on_ready(dropped.callback());
  }
  for (const Outcome* one : {&closed, &closed_late, &shut_down, &dropped})
    BOOST_TEST(one->calls == 0);
  loop.run();
  for (const Outcome* one : {&closed, &closed_late, &shut_down, &dropped})
    BOOST_TEST(one->failed(par::Errc::cancelled));
}

BOOST_AUTO_TEST_CASE(a_callback_of_on_ready_may_throw_and_may_drop_the_pool) {
  par::Reactor loop;
  auto pool = std::make_unique<par::Pool<int(int)>>(par::pool(loop, square, of(2)));
  Outcome other;
  pool->on_ready([](const par::Result<void>&) { throw std::runtime_error("thrown by on_ready"); });
  pool->on_ready([&](const par::Result<void>&) { pool.reset(); });
  pool->on_ready(other.callback());
  BOOST_CHECK_THROW(loop.run(), std::runtime_error);
  BOOST_TEST(other.calls == 0);
  loop.run();
  BOOST_TEST(!pool);
  BOOST_TEST(other.good());
}

BOOST_AUTO_TEST_CASE(callbacks_of_a_pool_are_destroyed_with_the_reactor) {
  const auto token = std::make_shared<int>(0);
  par::Pool<int(int)> pool;
  {
    par::Reactor loop;
    pool = par::pool(loop, square, of(2, 1));
    pool.on_ready([token](const par::Result<void>&) { ++*token; });
    pool.on_replaced([token](const par::Result<void>&) { ++*token; });
    pool.replace();
    pool.on_replaced([token](const par::Result<void>&) { ++*token; });
    pool.on_worker([token](const par::WorkerEvent&) { ++*token; });
    pool.on_closed([token] { ++*token; });
    pool.close();
  }
  BOOST_TEST(token.use_count() == 1);
  BOOST_TEST(*token == 0);
  pool.on_ready([token](const par::Result<void>&) { ++*token; });
  pool.on_worker([token](const par::WorkerEvent&) { ++*token; });
  pool.on_closed([token] { ++*token; });
  BOOST_TEST(token.use_count() == 1);
}

// ---- the events of children ----

BOOST_AUTO_TEST_CASE(the_start_and_the_end_of_a_killed_child_are_reported) {
  par::Reactor loop;
  auto pool = par::pool(loop, pid_of, of(1));
  Log log;
  pool.on_worker(log.callback());
  const pid_t pid = pool.wait(0).value();
  BOOST_TEST((log.kinds_of(pid) == std::vector<Kind>{Kind::started, Kind::ready}));
  BOOST_TEST(::kill(pid, SIGKILL) == 0);
  BOOST_TEST(testing::loop_until(loop, [&] { return log.end_of(pid) != nullptr; }));
  BOOST_TEST((log.kinds_of(pid) == whole_life));
  const par::WorkerEvent& end = *log.end_of(pid);
  BOOST_REQUIRE(end.status.has_value());
  BOOST_TEST(end.status->pid == pid);
  BOOST_TEST(end.status->signal() == SIGKILL);
  BOOST_TEST(end.calls == 1u);
  BOOST_TEST(!end.expected);
  BOOST_TEST(!end.error.has_value());
  const pid_t next = pool.wait(0).value();
  BOOST_TEST(next != pid);
  BOOST_TEST((log.kinds_of(next) == std::vector<Kind>{Kind::started, Kind::ready}));
  BOOST_TEST(log.events.size() == 5u);
}

BOOST_AUTO_TEST_CASE(the_end_of_a_child_is_reported_after_the_callback_of_its_call) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x < 0) ::raise(SIGKILL);
        return x;
      },
      of(1));
  std::vector<std::string> order;
  pool.on_worker([&](const par::WorkerEvent& event) {
    if (event.kind == Kind::ended) order.push_back("ended");
  });
  pool.submit(-1, [&](const par::Result<int>& r) { order.push_back(to_string(r.error().code())); });
  BOOST_TEST(testing::loop_until(loop, [&] { return order.size() >= 2; }));
  BOOST_TEST(order == (std::vector<std::string>{"child_killed", "ended"}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(the_end_of_a_recycled_child_is_expected) {
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.max_calls = 2;
  options.child.linger = 1h;  // they end by themselves, however slowly
  auto pool = par::pool(loop, pid_of, options);
  Log log;
  pool.on_worker(log.callback());
  std::set<pid_t> pids;
  for (int i = 0; i < 6; ++i) pids.insert(pool.wait(i).value());
  BOOST_TEST(pids.size() == 3u);
  bool closed = false;
  pool.on_closed([&] { closed = true; });
  pool.close();
  loop.run();
  BOOST_TEST(closed);
  for (const pid_t pid : pids) {
    BOOST_TEST((log.kinds_of(pid) == whole_life));
    BOOST_TEST(log.end_of(pid)->expected);
    BOOST_TEST(log.end_of(pid)->calls == 2u);
    BOOST_TEST(log.end_of(pid)->status->exited());
    BOOST_TEST(!log.end_of(pid)->error.has_value());
  }
}

BOOST_AUTO_TEST_CASE(the_end_of_an_idle_child_is_expected) {
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.idle_timeout = 1ms;
  auto pool = par::pool(loop, pid_of, options);
  Log log;
  pool.on_worker(log.callback());
  const pid_t pid = pool.wait(0).value();
  BOOST_TEST(testing::loop_until(loop, [&] { return log.end_of(pid) != nullptr; }));
  BOOST_TEST((log.kinds_of(pid) == whole_life));
  BOOST_TEST(log.end_of(pid)->expected);
  BOOST_TEST(log.events.size() == 3u);
}

BOOST_AUTO_TEST_CASE(a_failed_start_is_reported_with_its_error) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.child.on_start = start_if_good;
  options.max_failed_starts = 2;
  auto pool = par::pool(loop, square, options);
  Log log;
  pool.on_worker(log.callback());
  BOOST_TEST((pool.wait(0).error().code() == par::Errc::unhealthy));
  BOOST_TEST(testing::loop_until(loop, [&] { return log.count(Kind::ended) == 2; }));
  BOOST_TEST(log.count(Kind::started) == 2u);
  BOOST_TEST(log.count(Kind::ready) == 0u);
  for (const auto& event : log.events) {
    BOOST_TEST(event.pid > 0);
    if (event.kind != Kind::ended) continue;
    BOOST_TEST(!event.expected);
    BOOST_TEST(event.calls == 0u);
    BOOST_REQUIRE(event.error.has_value());
    BOOST_TEST((event.error->code() == par::Errc::remote_exception));
    BOOST_TEST(testing::has(event.error->what(), "broken start"));
  }
}

BOOST_AUTO_TEST_CASE(a_child_that_was_never_forked_is_reported_without_a_pid) {
  par::Snapshot snapshot;
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.snapshots = {&snapshot};
  auto pool = par::pool(loop, square, options);
  Log log;
  pool.on_worker(log.callback());
  snapshot.stop();
  BOOST_TEST((pool.wait(0).error().code() == par::Errc::no_snapshot));
  testing::turn(loop);
  BOOST_REQUIRE(log.events.size() == 1u);
  BOOST_TEST((log.events[0].kind == Kind::ended));
  BOOST_TEST(log.events[0].pid == 0);
  BOOST_TEST((log.events[0].status->cause == par::Cause::not_started));
  BOOST_TEST((log.events[0].error->code() == par::Errc::no_snapshot));
}

BOOST_AUTO_TEST_CASE(a_callback_of_on_worker_may_throw_and_may_drop_the_pool) {
  for (const Kind kind : {Kind::started, Kind::ready, Kind::ended}) {
    par::Reactor loop;
    auto pool = std::make_unique<par::Pool<int(int)>>(par::pool(loop, pid_of, of(2, 2)));
    int events = 0;
    bool thrown = false;
    pool->on_worker([&](const par::WorkerEvent& event) {
      if (event.kind != kind) return;
      ++events;
      if (events == 2) pool.reset();
      if (events == 1) throw std::runtime_error("thrown by on_worker");
    });
    std::set<pid_t> killed;
    const auto turn = [&] {
      try {
        testing::turn(loop);
      } catch (const std::runtime_error&) {
        thrown = true;
      }
      if (!pool || kind != Kind::ended) return;
      for (const pid_t pid : ready_pids(*pool))
        if (killed.insert(pid).second) ::kill(pid, SIGKILL);
    };
    BOOST_TEST(testing::wait_until([&] { return !pool; }, turn));
    BOOST_TEST(thrown);
    loop.run();
    BOOST_TEST(events == 2);
  }
}

// ---- closed ----

BOOST_AUTO_TEST_CASE(on_closed_is_called_after_all_other_callbacks) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_behind_gate, of(3));
  std::set<pid_t> pids;
  int answers = 0;
  bool mapped = false;
  Log log;
  int closed = 0;
  pool.on_worker(log.callback());
  for (int i = 0; i < 20; ++i)
    pool.submit(i, [&](par::Result<Answer> r) {
      BOOST_TEST(closed == 0);
      ++answers;
      pids.insert(r.value().second);
    });
  pool.map(
      std::vector<int>(50), [&](std::size_t, const par::Result<Answer>&) { ++answers; },
      [&](const par::MapSummary&) {
        BOOST_TEST(closed == 0);
        mapped = true;
      });
  BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls >= 3; }));
  pool.on_closed([&] {
    ++closed;
    BOOST_TEST(answers == 70);
    BOOST_TEST(mapped);
    BOOST_TEST(log.count(Kind::ended) == pool.stats().started);
    for (const pid_t pid : pids) BOOST_TEST(!testing::process_exists(pid));
  });
  pool.close();
  BOOST_TEST(closed == 0);
  shared->open = true;
  loop.run();
  BOOST_TEST(closed == 1);
  bool late = false;
  pool.on_closed([&] { late = true; });
  BOOST_TEST(!late);
  loop.run();
  BOOST_TEST(late);
  BOOST_TEST(closed == 1);
}

BOOST_AUTO_TEST_CASE(on_closed_after_shutdown_waits_for_children_that_ignore_sigterm) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.grace = 50ms;
  auto pool = par::pool(
      loop,
      [](int x) {
        ::signal(SIGTERM, SIG_IGN);
        ++shared->calls;
        while (!shared->open) ::usleep(100);
        return x;
      },
      options);
  Log log;
  pool.on_worker(log.callback());
  std::vector<std::string> order;
  for (int i = 0; i < 2; ++i)
    pool.submit(i,
                [&](const par::Result<int>& r) { order.push_back(to_string(r.error().code())); });
  BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls == 2; }));
  const std::set<pid_t> pids = ready_pids(pool);
  BOOST_TEST(pids.size() == 2u);
  pool.on_closed([&] {
    order.push_back("closed");
    for (const pid_t pid : pids) BOOST_TEST(!testing::process_exists(pid));
  });
  pool.shutdown(1ms);
  loop.run();
  BOOST_TEST(order == (std::vector<std::string>{"cancelled", "cancelled", "closed"}),
             boost::test_tools::per_element());
  for (const pid_t pid : pids) {
    BOOST_TEST((log.kinds_of(pid) == whole_life));
    BOOST_TEST(log.end_of(pid)->expected);
    BOOST_TEST(log.end_of(pid)->status->signal() == SIGKILL);
    BOOST_TEST((log.end_of(pid)->status->cause == par::Cause::terminated));
  }
}

BOOST_AUTO_TEST_CASE(on_closed_is_called_for_a_pool_that_never_had_a_child) {
  for (const bool shut_down : {false, true}) {
    par::Reactor loop;
    auto pool = par::pool(loop, square, of(2));
    int closed = 0;
    pool.on_closed([&] { ++closed; });
    loop.run();  // it does not hold the loop yet
    BOOST_TEST(closed == 0);
    if (shut_down)
      pool.shutdown(1h);
    else
      pool.close();
    BOOST_TEST(closed == 0);
    loop.run();
    BOOST_TEST(closed == 1);
    BOOST_TEST(pool.stats().started == 0u);
  }
}

BOOST_AUTO_TEST_CASE(on_closed_is_called_when_the_last_map_is_cancelled) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_behind_gate, of(1));
  bool closed = false;
  bool done = false;
  par::MapHandle map = pool.map(
      std::vector<int>(3), [](std::size_t, const par::Result<Answer>&) {},
      [&](const par::MapSummary& summary) {
        BOOST_TEST(!closed);
        done = summary.stopped;
      });
  BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls == 1; }));
  pool.on_closed([&] { closed = true; });
  pool.close();
  testing::turn(loop, 3);
  BOOST_TEST(!closed);
  map.cancel();
  shared->open = true;
  loop.run();
  BOOST_TEST(done);
  BOOST_TEST(closed);
}

BOOST_AUTO_TEST_CASE(a_callback_of_on_closed_may_throw_and_may_drop_the_pool) {
  par::Reactor loop;
  auto pool = std::make_unique<par::Pool<int(int)>>(par::pool(loop, square, of(2, 1)));
  made_ready(loop, *pool);
  int closed = 0;
  pool->on_closed([&] {
    ++closed;
    throw std::runtime_error("thrown by on_closed");
  });
  pool->on_closed([&] {
    ++closed;
    pool.reset();
  });
  pool->on_closed([&] { ++closed; });
  pool->close();
  BOOST_CHECK_THROW(loop.run(), std::runtime_error);
  loop.run();
  BOOST_TEST(!pool);
  BOOST_TEST(closed == 3);
}

BOOST_AUTO_TEST_CASE(on_closed_of_a_dropped_pool_is_destroyed_without_a_call) {
  par::Reactor loop;
  const auto token = std::make_shared<int>(0);
  {
    auto pool = par::pool(loop, square, of(2, 1));
    made_ready(loop, pool);
    pool.on_closed([token] { ++*token; });
    pool.on_worker([token](const par::WorkerEvent&) { ++*token; });
    pool.close();
  }
  BOOST_TEST(token.use_count() == 1);
  loop.run();
  BOOST_TEST(*token == 0);
}

// ---- replacement ----

BOOST_AUTO_TEST_CASE(replace_under_load_loses_no_call_and_makes_none_twice) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_function, of(3));
  std::map<int, std::vector<Answer>> answers;
  Outcome replaced;
  int next = 0;
  int after = 0;
  std::size_t old_calls_after = 0;
  std::function<void()> submit = [&] {
    if (after == 100) return;
    if (replaced.calls > 0) ++after;
    const bool late = replaced.calls > 0;
    const int id = next++;
    pool.submit(id, [&, id, late](par::Result<Answer> r) {
      answers[id].push_back(r.value());
      old_calls_after += late && r->first == 1;
      submit();
    });
  };
  for (int i = 0; i < 20; ++i) submit();
  BOOST_TEST(testing::loop_until(loop, [&] { return answers.size() > 100; }));
  pool.replace(new_function);
  pool.on_replaced(replaced.callback());
  loop.run();
  BOOST_TEST(replaced.good());
  BOOST_TEST(after == 100);
  BOOST_TEST(old_calls_after == 0u);
  BOOST_TEST(answers.size() == static_cast<std::size_t>(next));
  BOOST_TEST(shared->calls == next);
  std::set<int> old_pids;
  std::set<int> new_pids;
  for (const auto& one : answers) {
    BOOST_TEST(one.second.size() == 1u);
    (one.second[0].first == 1 ? old_pids : new_pids).insert(one.second[0].second);
  }
  BOOST_TEST(!old_pids.empty());
  BOOST_TEST(!new_pids.empty());
  for (const int pid : old_pids) {
    BOOST_TEST(new_pids.count(pid) == 0u);
    BOOST_TEST(!testing::process_exists(pid));
  }
}

BOOST_AUTO_TEST_CASE(old_children_answer_what_they_have_begun_and_new_ones_what_waits) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_behind_gate, of(1));
  std::vector<Answer> answers;
  const auto keep = [&](par::Result<Answer> r) { answers.push_back(r.value()); };
  pool.submit(0, keep);
  BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls == 1; }));
  pool.submit(1, keep);
  pool.submit(2, keep);
  Outcome replaced;
  pool.replace(new_function);
  pool.on_replaced(replaced.callback());
  BOOST_TEST(testing::loop_until(loop, [&] { return answers.size() == 2; }));
  BOOST_TEST(answers[0].first == 2);
  BOOST_TEST(answers[1].first == 2);
  BOOST_TEST(replaced.calls == 0);  // an old child is left
  shared->open = true;
  loop.run();
  BOOST_TEST(replaced.good());
  BOOST_REQUIRE(answers.size() == 3u);
  BOOST_TEST(answers[2].first == 1);
  BOOST_TEST(shared->calls == 3);
}

BOOST_AUTO_TEST_CASE(new_children_are_ready_before_old_ones_end) {
  par::Reactor loop;
  auto pool = par::pool(loop, pid_of, of(3, 3));
  const std::set<pid_t> before = made_ready(loop, pool);
  BOOST_TEST(before.size() == 3u);
  std::size_t ready = before.size();
  std::size_t least = ready;
  pool.on_worker([&](const par::WorkerEvent& event) {
    if (event.kind == Kind::ready) ++ready;
    if (event.kind == Kind::ended) {
      BOOST_TEST(event.expected);
      --ready;
    }
    least = std::min(least, ready);
  });
  Outcome replaced;
  pool.replace();
  pool.on_replaced(replaced.callback());
  loop.run();
  BOOST_TEST(replaced.good());
  BOOST_TEST(least == 3u);
  const std::set<pid_t> after = ready_pids(pool);
  BOOST_TEST(after.size() == 3u);
  for (const pid_t pid : before) {
    BOOST_TEST(after.count(pid) == 0u);
    BOOST_TEST(!testing::process_exists(pid));
  }
  BOOST_TEST(pool.stats().recycled == 3u);
  BOOST_TEST(after.count(pool.wait(0).value()) == 1u);
}

BOOST_AUTO_TEST_CASE(a_pool_without_children_is_replaced_too) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_function, of(2));
  Outcome replaced;
  pool.replace(new_function);
  pool.on_replaced(replaced.callback());
  BOOST_TEST(answer_of(pool).first == 2);  // the call has waited for the new child
  loop.run();
  BOOST_TEST(replaced.good());
  BOOST_TEST(pool.stats().started == 1u);
  BOOST_TEST(pool.stats().recycled == 0u);

  // Nothing is under way.
  Outcome late;
  pool.on_replaced(late.callback());
  BOOST_TEST(late.calls == 0);
  loop.run();
  BOOST_TEST(late.good());
}

BOOST_AUTO_TEST_CASE(replace_takes_other_options) {
  reset();
  par::Reactor loop;
  const auto where = [](int) {
    const char* const value = ::getenv("EVPARALLEL_TEST_LIFE");
    return std::to_string(which_snapshot) + (value ? value : "") + std::to_string(shared->starts);
  };
  auto pool = par::pool(loop, where, of(3, 3));
  made_ready(loop, pool);
  BOOST_TEST(pool.wait(0).value() == "10");
  par::PoolOptions options = of(1, 1);
  options.snapshots = {second_snapshot.get()};
  options.child.env["EVPARALLEL_TEST_LIFE"] = " new ";
  options.child.on_start = [] { ++shared->starts; };
  options.max_queue = 1;
  Outcome replaced;
  pool.replace(options);
  pool.on_replaced(replaced.callback());
  loop.run();
  BOOST_TEST(replaced.good());
  BOOST_TEST(pool.wait(0).value() == "2 new 1");
  BOOST_TEST(ready_pids(pool).size() == 1u);

  // Of these options a restart and another function make use, too.
  pool.replace();
  loop.run();
  BOOST_TEST(pool.wait(0).value() == "2 new 2");
  pool.replace([](int x) { return std::to_string(x) + ::getenv("EVPARALLEL_TEST_LIFE"); });
  loop.run();
  BOOST_TEST(pool.wait(7).value() == "7 new ");
  BOOST_TEST(shared->starts == 3);

  // Both at once; and the limit of a message.
  par::PoolOptions small = of(2);
  small.child.max_message = 20;
  pool.replace([](int x) { return std::string(static_cast<std::size_t>(x), 'x'); }, small);
  loop.run();
  BOOST_TEST(pool.wait(10).value() == std::string(10, 'x'));
  BOOST_TEST((pool.wait(30).error().code() == par::Errc::too_large));
}

BOOST_AUTO_TEST_CASE(replace_keeps_bound_arguments_apart) {
  par::Reactor loop;
  par::PoolOptions options = of(2, 2);
  options.child.on_start =
      par::bind([](const std::string& text) { ::setenv("EVPARALLEL_TEST_LIFE", text.c_str(), 1); },
                std::string(5000, 's'));
  const auto function = [](const std::string& word, int n) {
    return word + std::to_string(n) +
           std::to_string(std::string(::getenv("EVPARALLEL_TEST_LIFE")).size());
  };
  auto pool = par::pool(loop, par::bind(function, std::string(3000, 'a')), options);
  BOOST_TEST(pool.wait(1).value() == std::string(3000, 'a') + "15000");
  pool.replace();
  loop.run();
  BOOST_TEST(pool.wait(2).value() == std::string(3000, 'a') + "25000");
  pool.replace(par::bind(function, std::string("b")));
  loop.run();
  BOOST_TEST(pool.wait(3).value() == "b35000");
  pool.replace(of(1));  // this removes on_start; the function needs the variable
  loop.run();
  ::setenv("EVPARALLEL_TEST_LIFE", "", 1);
  BOOST_TEST((pool.wait(4).error().code() == par::Errc::child_killed ||
              pool.wait(4).error().code() == par::Errc::remote_exception));
  ::unsetenv("EVPARALLEL_TEST_LIFE");
}

BOOST_AUTO_TEST_CASE(old_children_go_on_if_new_ones_cannot_start) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_function, of(2, 2));
  const std::set<pid_t> before = made_ready(loop, pool);
  par::PoolOptions broken = of(2, 2);
  broken.child.on_start = start_if_good;
  broken.max_failed_starts = 3;
  Log log;
  pool.on_worker(log.callback());
  Outcome replaced;
  pool.replace(new_function, broken);
  pool.on_replaced(replaced.callback());
  int answers = 0;
  while (replaced.calls == 0) {
    BOOST_TEST(answer_of(pool).first == 1);
    ++answers;
  }
  BOOST_TEST(answers > 0);
  BOOST_REQUIRE(replaced.failed(par::Errc::unhealthy));
  BOOST_TEST(testing::has(replaced.error->what(), "broken start"));
  BOOST_TEST((ready_pids(pool) == before));
  testing::turn(loop);
  BOOST_TEST(log.count(Kind::ended) == 3u);
  for (const auto& event : log.events)
    if (event.kind == Kind::ended) BOOST_TEST(event.error.has_value());

  // Children that are started later have the old function and the old options, too.
  for (const pid_t pid : before) BOOST_TEST(::kill(pid, SIGKILL) == 0);
  BOOST_TEST(testing::loop_until(loop, [&] {
    const std::set<pid_t> now = ready_pids(pool);
    return now.size() == 2 && now != before;
  }));
  BOOST_TEST(answer_of(pool).first == 1);

  // A good replacement may follow.
  Outcome good;
  pool.replace(new_function);
  pool.on_replaced(good.callback());
  loop.run();
  BOOST_TEST(good.good());
  BOOST_TEST(answer_of(pool).first == 2);
}

BOOST_AUTO_TEST_CASE(waiting_calls_get_the_old_function_if_the_new_one_cannot_start) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_function, of(2));
  par::PoolOptions broken = of(2);
  broken.child.on_start = start_if_good;
  broken.max_failed_starts = 2;
  Outcome replaced;
  Outcome ready;
  pool.replace(new_function, broken);
  pool.on_replaced(replaced.callback());
  pool.on_ready(ready.callback());
  BOOST_TEST(answer_of(pool).first == 1);
  loop.run();
  BOOST_TEST(replaced.failed(par::Errc::unhealthy));
  BOOST_TEST(ready.good());
}

BOOST_AUTO_TEST_CASE(a_replacement_of_a_stopped_snapshot_fails_at_once) {
  reset();
  par::Snapshot snapshot;
  par::Reactor loop;
  auto pool = par::pool(loop, old_function, of(2, 2));
  const std::set<pid_t> before = made_ready(loop, pool);
  par::PoolOptions options = of(2, 2);
  options.snapshots = {&snapshot};
  Outcome replaced;
  pool.replace(new_function, options);
  pool.on_replaced(replaced.callback());
  snapshot.stop();
  loop.run();
  BOOST_TEST(replaced.failed(par::Errc::no_snapshot));
  BOOST_TEST((ready_pids(pool) == before));
  BOOST_TEST(answer_of(pool).first == 1);
}

BOOST_AUTO_TEST_CASE(children_that_are_left_go_on_if_the_new_function_fails_later) {
  reset();
  shared->good_starts = 1;
  par::Reactor loop;
  auto pool = par::pool(loop, old_function, of(3, 3));
  const std::set<pid_t> before = made_ready(loop, pool);
  par::PoolOptions options = of(3, 3);
  options.child.on_start = start_if_good;
  options.max_failed_starts = 2;
  Outcome replaced;
  pool.replace(new_function, options);
  pool.on_replaced(replaced.callback());
  loop.run();
  BOOST_REQUIRE(replaced.failed(par::Errc::unhealthy));
  const std::set<pid_t> now = ready_pids(pool);
  BOOST_TEST(now.size() == 3u);
  std::size_t left = 0;
  for (const pid_t pid : now) left += before.count(pid);
  BOOST_TEST(left == 2u);
  for (int i = 0; i < 20; ++i) BOOST_TEST(pool.wait(i).has_value());

  shared->good_starts = 1000;
  Outcome again;
  pool.replace();
  pool.on_replaced(again.callback());
  loop.run();
  BOOST_TEST(again.good());
  for (const pid_t pid : ready_pids(pool)) BOOST_TEST(now.count(pid) == 0u);
  for (int i = 0; i < 20; ++i) BOOST_TEST(answer_of(pool).first == 2);
}

BOOST_AUTO_TEST_CASE(a_second_replace_takes_the_place_of_the_first) {
  for (const bool first_is_adopted : {false, true}) {
    reset();
    par::Reactor loop;
    auto pool = par::pool(loop, old_function, of(4, 4));
    const std::set<pid_t> before = made_ready(loop, pool);
    Outcome first;
    Outcome second;
    bool begun = false;
    const auto begin_second = [&] {
      begun = true;
      pool.replace([](int) { return Answer{3, static_cast<int>(::getpid())}; });
      pool.on_replaced(second.callback());
    };
    pool.on_worker([&](const par::WorkerEvent& event) {
      if (event.kind == Kind::ready && !begun) begin_second();
    });
    pool.replace(new_function);
    pool.on_replaced(first.callback());
    if (!first_is_adopted) begin_second();
    loop.run();
    BOOST_TEST(begun);
    BOOST_TEST(first.failed(par::Errc::cancelled));
    BOOST_TEST(second.good());
    for (const pid_t pid : ready_pids(pool)) BOOST_TEST(before.count(pid) == 0u);
    BOOST_TEST(ready_pids(pool).size() == 4u);
    std::vector<Answer> answers;
    for (int i = 0; i < 40; ++i)
      pool.submit(i, [&](par::Result<Answer> r) { answers.push_back(r.value()); });
    loop.run();
    BOOST_TEST(answers.size() == 40u);
    for (const Answer& answer : answers) BOOST_TEST(answer.first == 3);
  }
}

BOOST_AUTO_TEST_CASE(a_broken_second_replace_does_not_stop_the_first) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_function, of(4, 4));
  const std::set<pid_t> before = made_ready(loop, pool);
  par::PoolOptions broken = of(4, 4);
  broken.child.on_start = start_if_good;
  broken.max_failed_starts = 1;
  Outcome first;
  Outcome second;
  bool begun = false;
  pool.on_worker([&](const par::WorkerEvent& event) {
    if (event.kind != Kind::ready || std::exchange(begun, true)) return;
    pool.replace([](int) { return Answer{3, 0}; }, broken);
    pool.on_replaced(second.callback());
  });
  pool.replace(new_function);
  pool.on_replaced(first.callback());
  loop.run();
  BOOST_TEST(first.failed(par::Errc::cancelled));
  BOOST_TEST(second.failed(par::Errc::unhealthy));
  BOOST_TEST(testing::loop_until(loop, [&] {
    const std::set<pid_t> now = ready_pids(pool);
    return now.size() == 4 &&
           std::none_of(now.begin(), now.end(), [&](pid_t pid) { return before.count(pid) > 0; });
  }));
  for (int i = 0; i < 20; ++i) BOOST_TEST(answer_of(pool).first == 2);
}

BOOST_AUTO_TEST_CASE(a_replacement_is_cancelled_when_the_pool_ends) {
  for (const int way : {0, 1, 2}) {
    reset();
    par::Reactor loop;
    auto pool = std::make_unique<par::Pool<Answer(int)>>(par::pool(loop, old_function, of(2, 2)));
    made_ready(loop, *pool);
    Outcome replaced;
    Outcome late;
    bool closed = false;
    pool->on_closed([&] { closed = true; });
    pool->replace(new_function);
    pool->on_replaced(replaced.callback());
    std::vector<Answer> answers;
    pool->submit(0, [&](const par::Result<Answer>& r) {
      if (r) answers.push_back(*r);
    });
    if (way == 0) pool->close();
    if (way == 1) pool->shutdown(1h);
    if (way == 2) pool.reset();
    if (pool) pool->on_replaced(late.callback());
    BOOST_TEST(replaced.calls == 0);
    loop.run();
    BOOST_TEST(replaced.failed(par::Errc::cancelled));
    BOOST_TEST(closed == (way < 2));
    BOOST_TEST(answers.size() == (way == 0 ? 1u : answers.size()));
    if (!pool) continue;
    BOOST_TEST(late.good());
    BOOST_TEST(testing::has(testing::misuse_of([&] { pool->replace(new_function); }),
                            "a pool was called after its close()"));
    BOOST_TEST(testing::has(testing::misuse_of([&] { pool->replace(); }),
                            "a pool was called after its close()"));
    BOOST_TEST(testing::has(testing::misuse_of([&] { pool->replace(of(1)); }),
                            "a pool was called after its close()"));
  }
}

BOOST_AUTO_TEST_CASE(callbacks_may_replace_the_children) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_function, of(2, 2));
  int replaced = 0;
  std::function<void(par::Result<void>)> again = [&](const par::Result<void>& r) {
    r.value();
    if (++replaced == 3) return;
    pool.replace(new_function);
    pool.on_replaced(again);
  };
  bool by_event = false;
  pool.on_worker([&](const par::WorkerEvent& event) {
    if (event.kind != Kind::ready || std::exchange(by_event, true)) return;
    pool.replace(new_function);
  });
  made_ready(loop, pool);
  BOOST_TEST(by_event);
  pool.submit(0, [&](const par::Result<Answer>& r) {
    r.value();
    pool.replace();
    pool.on_replaced(again);
  });
  loop.run();
  BOOST_TEST(replaced == 3);
  BOOST_TEST(answer_of(pool).first == 2);
}

BOOST_AUTO_TEST_CASE(a_callback_of_on_replaced_may_throw_and_may_drop_the_pool) {
  reset();
  par::Reactor loop;
  auto pool = std::make_unique<par::Pool<Answer(int)>>(par::pool(loop, old_function, of(2, 2)));
  made_ready(loop, *pool);
  Outcome other;
  pool->replace();
  pool->on_replaced([](const par::Result<void>&) { throw std::runtime_error("thrown"); });
  pool->on_replaced([&](const par::Result<void>&) { pool.reset(); });
  pool->on_replaced(other.callback());
  BOOST_CHECK_THROW(loop.run(), std::runtime_error);
  loop.run();
  BOOST_TEST(!pool);
  BOOST_TEST(other.good());
}

BOOST_AUTO_TEST_CASE(replace_refuses_other_codecs) {
  par::Reactor loop;
  const auto twice = [](const std::string& s) { return s + s; };
  const auto thrice = [](const std::string& s) { return s + s + s; };
  auto json = par::pool(loop, twice, of(1));
  auto raw = par::pool<par::RawIo, par::RawIo>(loop, twice, of(1));
  auto mixed = par::pool<par::RawIo, par::DefaultIo>(loop, twice, of(1));
  const std::string text = "must name the codecs that pool() has named";
  BOOST_TEST(testing::has(testing::misuse_of([&] { json.replace<par::RawIo, par::RawIo>(thrice); }),
                          text));
  BOOST_TEST(testing::has(testing::misuse_of([&] { json.replace<par::RawIo>(thrice); }), text));
  BOOST_TEST(testing::has(testing::misuse_of([&] { raw.replace(thrice); }), text));
  BOOST_TEST(testing::has(testing::misuse_of([&] { raw.replace<par::RawIo>(thrice); }), text));
  BOOST_TEST(testing::has(testing::misuse_of([&] { mixed.replace(thrice); }), text));
  BOOST_TEST(json.wait("a").value() == "aa");
  json.replace(thrice);
  raw.replace<par::RawIo, par::RawIo>(thrice);
  mixed.replace<par::RawIo, par::DefaultIo>(thrice, of(1));
  loop.run();
  BOOST_TEST(json.wait("a").value() == "aaa");
  BOOST_TEST(raw.wait("a").value() == "aaa");
  BOOST_TEST(mixed.wait("a").value() == "aaa");
}

BOOST_AUTO_TEST_CASE(replace_refuses_bad_options_and_changes_nothing) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, old_function, of(2, 2));
  const std::set<pid_t> before = made_ready(loop, pool);
  Outcome replaced;
  pool.replace(new_function);
  pool.on_replaced(replaced.callback());
  par::PoolOptions negative = of(2);
  negative.max_age = -1ms;
  BOOST_TEST(testing::has(testing::misuse_of([&] { pool.replace(negative); }), "max_age"));
  loop.run();
  BOOST_TEST(replaced.good());  // the one that was under way
  BOOST_TEST(answer_of(pool).first == 2);
}

BOOST_AUTO_TEST_CASE(a_map_goes_on_while_the_children_are_replaced) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, square, of(3));
  Outcome replaced;
  std::size_t next = 0;
  std::size_t right = 0;
  bool done = false;
  constexpr int items = 20000;
  int given = 0;
  par::MapOptions options;
  options.chunk = 10;
  pool.map(
      [&]() -> std::optional<int> {
        return given < items || replaced.calls == 0 ? std::optional(given++ % 1000) : std::nullopt;
      },
      [&](std::size_t index, par::Result<int> r) {
        right += index == next++ && r.value() == square(static_cast<int>(index) % 1000);
        if (index == 1000) {
          pool.replace(+[](int x) { return x * x; });
          pool.on_replaced(replaced.callback());
        }
      },
      [&](const par::MapSummary& summary) { done = summary.done == next && summary.failed == 0; },
      std::move(options));
  loop.run();
  BOOST_TEST(done);
  BOOST_TEST(right == next);
  BOOST_TEST(next >= static_cast<std::size_t>(items));
  BOOST_TEST(replaced.good());
}

BOOST_AUTO_TEST_CASE(a_replacement_survives_the_death_of_old_and_new_children) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(4, 4);
  options.child.idempotent = true;
  options.child.retries = 1000;
  auto pool = par::pool(loop, old_function, options);
  made_ready(loop, pool);
  std::size_t kills = 0;
  std::vector<std::pair<pid_t, Kind>> seen;
  pool.on_worker([&](const par::WorkerEvent& event) {
    seen.emplace_back(event.pid, event.kind);
    if (event.kind == Kind::ready && kills < 3 && ::kill(event.pid, SIGKILL) == 0) ++kills;
  });
  std::vector<Answer> answers;
  Outcome replaced;
  std::function<void(par::Result<Answer>)> next = [&](par::Result<Answer> r) {
    answers.push_back(r.value());
    if (replaced.calls == 0) pool.submit(0, next);
  };
  for (int i = 0; i < 8; ++i) pool.submit(0, next);
  const std::set<pid_t> before = ready_pids(pool);
  BOOST_TEST(::kill(*before.begin(), SIGKILL) == 0);
  pool.replace(new_function);
  pool.on_replaced(replaced.callback());
  loop.run();
  BOOST_TEST(replaced.good());
  BOOST_TEST(kills == 3u);
  for (const pid_t pid : before) BOOST_TEST(!testing::process_exists(pid));
  for (int i = 0; i < 20; ++i) BOOST_TEST(answer_of(pool).first == 2);
}
