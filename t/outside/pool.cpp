// pool.cpp - pools, with the public interface: calls on few children.
#include "errors.hpp"
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>

namespace par = evparallel;
using namespace std::chrono_literals;

namespace {

// Memory that the children of a case share with it.
struct Shared {
  std::atomic<int> starts{0};
  std::atomic<int> failures_left{0};
  std::atomic<int> calls{0};
  std::atomic<bool> open{false};
  std::atomic<int> first_parent{0};
  std::atomic<int> begun[64]{};
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

par::CallOptions with_priority(int priority) {
  par::CallOptions options;
  options.priority = priority;
  return options;
}

int square(int x) {
  return x * x;
}

par::PoolOptions of(unsigned workers) {
  par::PoolOptions options;
  options.workers = workers;
  return options;
}

// Returns its argument once the case has opened the gate.
int wait_for_gate(int x) {
  ++shared->begun[x];
  while (!shared->open) ::usleep(100);
  return x;
}

// An idle pool does not hold the loop; this timer does, for a moment.
void turn(par::Reactor& loop) {
  const par::Timer moment = loop.after(1ms, [] {});
  loop.run_for(1ms);
}

void reset() {
  new (shared) Shared;
}

std::function<void(par::Result<int>)> into(std::vector<int>& answers) {
  return [&answers](par::Result<int> r) { answers.push_back(r.value()); };
}

}  // namespace

// ---- calls ----

BOOST_AUTO_TEST_CASE(a_call_is_answered) {
  par::Reactor loop;
  auto pool = par::pool(loop, square, of(2));
  int answer = 0;
  pool.submit(7, [&](par::Result<int> r) { answer = r.value(); });
  BOOST_TEST(answer == 0);  // never from inside the call
  BOOST_TEST(pool.pending() == 1u);
  loop.run();
  BOOST_TEST(answer == 49);
  BOOST_TEST(pool.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(ten_thousand_calls_get_their_own_answers_from_many_children) {
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](int x) { return std::make_pair(x * 2, static_cast<int>(::getpid())); }, of(3));
  int right = 0;
  std::set<int> pids;
  for (int i = 0; i < 10000; ++i)
    pool.submit(i, [&, i](par::Result<std::pair<int, int>> r) {
      right += r.value().first == 2 * i;
      pids.insert(r->second);
    });
  loop.run();
  BOOST_TEST(right == 10000);
  BOOST_TEST(pids.size() <= 3u);
  BOOST_TEST(pids.count(::getpid()) == 0u);
}

BOOST_AUTO_TEST_CASE(a_function_may_have_no_argument_and_no_answer) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop, [] { ++shared->calls; }, of(2));
  int received = 0;
  for (int i = 0; i < 10; ++i)
    pool.submit([&](par::Result<void> r) {
      r.value();
      ++received;
    });
  loop.run();
  BOOST_TEST(received == 10);
  BOOST_TEST(shared->calls == 10);
}

BOOST_AUTO_TEST_CASE(a_callback_may_submit_calls) {
  par::Reactor loop;
  auto pool = par::pool(loop, square, of(2));
  int depth = 0;
  std::function<void(par::Result<int>)> next = [&](par::Result<int> r) {
    r.value();
    if (++depth < 1000) pool.submit(depth, next);
  };
  pool.submit(0, next);
  loop.run();
  BOOST_TEST(depth == 1000);
}

BOOST_AUTO_TEST_CASE(an_exception_fails_only_its_call_and_the_child_continues) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x == 1) throw std::out_of_range("one is too many");
        return static_cast<int>(::getpid());
      },
      of(1));
  std::vector<int> pids;
  std::optional<par::Error> error;
  pool.submit(0, into(pids));
  pool.submit(1, [&](par::Result<int> r) { error = r.error(); });
  pool.submit(2, into(pids));
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::remote_exception));
  BOOST_TEST(error->remote_type() == "std::out_of_range");
  BOOST_TEST((error->delivery() == par::Delivery::started));
  BOOST_REQUIRE(pids.size() == 2u);
  BOOST_TEST(pids[0] == pids[1]);
}

BOOST_AUTO_TEST_CASE(a_pool_works_with_every_codec) {
  par::Reactor loop;
  const auto twice = [](const std::string& s) { return s + s; };
  auto json = par::pool(loop, twice, of(1));
  auto raw = par::pool<par::RawIo, par::RawIo>(loop, twice, of(1));
  auto cbor = par::pool<par::CborIo, par::MsgpackIo>(loop, twice, of(1));
  auto mixed = par::pool<par::RawIo>(loop, twice, of(1));
  std::vector<std::string> answers;
  const auto keep = [&](par::Result<std::string> r) { answers.push_back(r.value()); };
  json.submit("ab", keep);
  raw.submit("ab", keep);
  cbor.submit("ab", keep);
  mixed.submit("ab", keep);
  loop.run();
  BOOST_REQUIRE(answers.size() == 4u);
  for (const std::string& answer : answers) BOOST_TEST(answer == "abab");
}

BOOST_AUTO_TEST_CASE(large_arguments_and_answers_are_delivered) {
  par::Reactor loop;
  auto pool = par::pool<par::RawIo, par::RawIo>(
      loop, [](std::string s) { return s + "!"; }, of(2));
  int right = 0;
  for (std::size_t size : {0u, 1u, 1023u, 1024u, 32768u, 65536u, 5000000u}) {
    const std::string text(size, 'x');
    pool.submit(text, [&, text](par::Result<std::string> r) { right += r.value() == text + "!"; });
    pool.submit(std::string(text),
                [&, text](par::Result<std::string> r) { right += r.value() == text + "!"; });
  }
  loop.run();
  BOOST_TEST(right == 14);
}

BOOST_AUTO_TEST_CASE(max_message_is_exact_in_both_directions) {
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.child.max_message = 100;
  auto pool = par::pool<par::RawIo, par::RawIo>(
      loop, [](const std::string& s) { return std::string(s.size() < 50 ? 101 : s.size(), 'y'); },
      options);
  std::vector<std::string> received;
  for (std::size_t size : {100u, 101u, 10u, 99u})
    pool.submit(std::string(size, 'x'), [&](par::Result<std::string> r) {
      received.push_back(r ? std::to_string(r->size()) : to_string(r.error().code()));
    });
  loop.run();
  std::sort(received.begin(), received.end());
  BOOST_TEST(received == (std::vector<std::string>{"100", "99", "too_large", "too_large"}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_value_that_cannot_be_encoded_fails_its_call_alone) {
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](const std::string& s) { return s.size(); }, of(1));
  std::optional<par::Error> error;
  std::size_t size = 0;
  pool.submit("\xff", [&](par::Result<std::size_t> r) { error = r.error(); });
  pool.submit("four", [&](par::Result<std::size_t> r) { size = r.value(); });
  BOOST_TEST(!error.has_value());
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::bad_message));
  BOOST_TEST((error->delivery() == par::Delivery::not_sent));
  BOOST_TEST(size == 4u);
}

BOOST_AUTO_TEST_CASE(bound_arguments_reach_each_child_once) {
  par::Reactor loop;
  auto pool =
      par::pool(loop,
                par::bind([](const std::string& word, int n) { return word + std::to_string(n); },
                          std::string(3000, 'w')),
                of(2));
  int right = 0;
  for (int i = 0; i < 20; ++i)
    pool.submit(i, [&, i](par::Result<std::string> r) {
      right += r.value() == std::string(3000, 'w') + std::to_string(i);
    });
  loop.run();
  BOOST_TEST(right == 20);
}

// ---- a child that dies ----

BOOST_AUTO_TEST_CASE(a_dead_child_fails_only_its_own_call) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x % 100 == 50) ::raise(SIGKILL);
        return x;
      },
      of(2));
  std::vector<int> received(1000);
  int right = 0;
  std::vector<int> culprits;
  for (int i = 0; i < 1000; ++i)
    pool.submit(i, [&, i](par::Result<int> r) {
      ++received[static_cast<std::size_t>(i)];
      if (r) {
        right += *r == i;
        return;
      }
      culprits.push_back(i);
      BOOST_TEST((r.error().code() == par::Errc::child_killed));
      BOOST_TEST((r.error().delivery() == par::Delivery::started));
      BOOST_REQUIRE(r.error().exit().has_value());
      BOOST_TEST(r.error().exit()->signal() == SIGKILL);
    });
  loop.run();
  BOOST_TEST(std::count(received.begin(), received.end(), 1) == 1000);
  BOOST_TEST(right == 990);
  std::sort(culprits.begin(), culprits.end());
  BOOST_REQUIRE(culprits.size() == 10u);
  for (std::size_t i = 0; i < 10; ++i) BOOST_TEST(culprits[i] == static_cast<int>(i) * 100 + 50);
  const par::PoolStats stats = pool.stats();
  BOOST_TEST(stats.done == 990u);
  BOOST_TEST(stats.failed == 10u);
  BOOST_TEST(stats.respawned >= 1u);
}

BOOST_AUTO_TEST_CASE(a_repeatable_call_is_repeated) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.retries = 3;
  options.child.idempotent = true;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (++shared->begun[x] <= x) ::raise(SIGKILL);
        return x;
      },
      options);
  std::map<int, std::string> received;
  for (int i = 0; i < 6; ++i)
    pool.submit(
        i, [&, i](par::Result<int> r) { received[i] = r ? "right" : to_string(r.error().code()); });
  loop.run();
  for (int i = 0; i < 6; ++i) BOOST_TEST(received[i] == (i <= 3 ? "right" : "child_killed"));
  BOOST_TEST(shared->begun[5] == 4);  // once, and three more times
  BOOST_TEST(pool.stats().retried >= 1u + 2 + 3 + 3 + 3);
}

BOOST_AUTO_TEST_CASE(a_dead_idle_child_is_replaced_when_there_is_work) {
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](int) { return static_cast<int>(::getpid()); }, of(1));
  std::vector<int> pids;
  pool.submit(0, into(pids));
  loop.run();
  BOOST_REQUIRE(pids.size() == 1u);
  ::kill(pids[0], SIGKILL);
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    return pool.stats().workers.empty();
  }));
  pool.submit(0, into(pids));
  loop.run();
  BOOST_REQUIRE(pids.size() == 2u);
  BOOST_TEST(pids[0] != pids[1]);
}

// ---- cancelled calls ----

BOOST_AUTO_TEST_CASE(waiting_and_running_calls_may_be_cancelled) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.child.grace = 50ms;
  auto pool = par::pool(loop, wait_for_gate, options);
  std::map<int, std::string> received;
  const auto note = [&](int i) {
    return [&received, i](par::Result<int> r) {
      received[i] = r ? "right" : to_string(r.error().code());
    };
  };
  par::Call running = pool.submit(0, note(0));
  par::Call waiting = pool.submit(1, note(1));
  pool.submit(2, note(2));
  par::Timer wait = loop.every(1ms, [&] {
    if (shared->begun[0] == 0) return;
    running.cancel();
    waiting.cancel();
    wait.cancel();
  });
  par::Timer open = loop.every(1ms, [&] {
    if (shared->begun[2] == 0) return;
    shared->open = true;
    open.cancel();
  });
  loop.run();
  BOOST_TEST(received[0] == "cancelled");
  BOOST_TEST(received[1] == "cancelled");
  BOOST_TEST(received[2] == "right");
  BOOST_TEST(shared->begun[1] == 0);
}

BOOST_AUTO_TEST_CASE(deadlines_count_from_submit) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.child.grace = 50ms;
  auto pool = par::pool(loop, wait_for_gate, options);
  std::vector<std::string> received;
  const auto note = [&](par::Result<int> r) {
    received.push_back(r ? "right" : to_string(r.error().code()));
  };
  pool.submit(0, [&](par::Result<int> r) { note(r); });
  pool.submit(1,
              [&](par::Result<int> r) {
                note(r);
                shared->open = true;
              })
      .set_deadline(20ms);
  loop.run();
  BOOST_TEST(received == (std::vector<std::string>{"deadline", "right"}),
             boost::test_tools::per_element());
  BOOST_TEST(shared->begun[1] == 0);

  // A call that is being executed.
  shared->open = false;
  received.clear();
  pool.submit(2, note).set_deadline(20ms);
  loop.run();
  BOOST_TEST(received == std::vector<std::string>{"deadline"}, boost::test_tools::per_element());
}

// ---- order ----

BOOST_AUTO_TEST_CASE(higher_priorities_go_first_and_equal_ones_in_order) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        ++shared->begun[x];
        while (x == 0 && !shared->open) ::usleep(100);
        return x;
      },
      of(1));
  std::vector<int> order;
  pool.submit(0, into(order));
  pool.submit(1, into(order));
  pool.submit(with_priority(5), 2, into(order));
  pool.submit(with_priority(-5), 3, into(order));
  pool.submit(with_priority(5), 4, into(order));
  pool.submit(5, into(order));
  par::Timer wait = loop.every(1ms, [&] {
    if (shared->begun[0] == 0) return;
    shared->open = true;
    wait.cancel();
  });
  loop.run();
  // The first call may be sent before the others are submitted, or be the first of its priority.
  order.erase(std::find(order.begin(), order.end(), 0));
  BOOST_TEST(order == (std::vector<int>{2, 4, 1, 5, 3}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_higher_priority_overtakes_calls_sent_ahead) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x < 64) ++shared->begun[x];
        while (x == 0 && !shared->open) ::usleep(100);
        return x;
      },
      of(1));
  // Short calls, so that the next ones are sent ahead.
  for (int i = 0; i < 1000; ++i) pool.submit(1000, [](par::Result<int> r) { r.value(); });
  loop.run();
  std::vector<int> order;
  for (int i = 0; i < 20; ++i) pool.submit(i, into(order));
  par::Timer wait = loop.every(1ms, [&] {
    if (shared->begun[0] == 0) return;
    wait.cancel();
    pool.submit(with_priority(1), 63, into(order));
    shared->open = true;
  });
  loop.run();
  BOOST_REQUIRE(order.size() == 21u);
  BOOST_TEST(order[0] == 0);
  BOOST_TEST(order[1] == 63);
  for (int i = 1; i < 20; ++i) {
    BOOST_TEST(order[static_cast<std::size_t>(i) + 1] == i);
    BOOST_TEST(shared->begun[i] == 1);
  }
}

BOOST_AUTO_TEST_CASE(calls_behind_a_slow_call_go_to_an_idle_child) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x < 64) ++shared->begun[x];
        // Until all others are done.
        while (x == 0 && !shared->open) ::usleep(100);
        return x;
      },
      of(2));
  for (int i = 0; i < 1000; ++i) pool.submit(1000, [](par::Result<int> r) { r.value(); });
  loop.run();
  int others = 0;
  bool slow = false;
  pool.submit(0, [&](par::Result<int> r) { slow = r.has_value(); });
  for (int i = 1; i < 60; ++i)
    pool.submit(i, [&](par::Result<int> r) {
      r.value();
      if (++others == 59) shared->open = true;
    });
  loop.run();
  BOOST_TEST(slow);
  BOOST_TEST(others == 59);
  for (int i = 0; i < 60; ++i) BOOST_TEST(shared->begun[i] == 1);
}

// ---- limits of the queue ----

BOOST_AUTO_TEST_CASE(submit_above_the_limit_refuses_until_on_drain) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.max_queue = 4;
  auto pool = par::pool(loop, wait_for_gate, options);
  int right = 0;
  std::vector<par::Error> errors;
  const auto note = [&](par::Result<int> r) {
    if (r)
      ++right;
    else
      errors.push_back(r.error());
  };
  pool.submit(0, note);
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    return shared->begun[0] == 1;
  }));
  bool drained = false;
  pool.on_drain([&] {
    drained = true;
    BOOST_TEST(!pool.full());
    pool.submit(9, note);
  });
  for (int i = 1; i <= 4; ++i) {
    BOOST_TEST(!pool.full());
    pool.submit(i, note);
  }
  BOOST_TEST(pool.full());
  pool.submit(5, note);
  BOOST_TEST(errors.empty());
  shared->open = true;
  loop.run();
  BOOST_TEST(right == 6);
  BOOST_TEST(drained);
  BOOST_REQUIRE(errors.size() == 1u);
  BOOST_TEST((errors[0].code() == par::Errc::overloaded));
  BOOST_TEST((errors[0].delivery() == par::Delivery::not_sent));
  BOOST_TEST(shared->begun[5] == 0);
}

BOOST_AUTO_TEST_CASE(waiting_bytes_are_limited) {
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.max_queue_bytes = 10000;
  auto pool = par::pool<par::RawIo, par::RawIo>(
      loop, [](const std::string& s) { return s.size(); }, options);
  int right = 0;
  int overloaded = 0;
  for (int i = 0; i < 10; ++i)
    pool.submit(std::string(3000, 'x'), [&](par::Result<std::size_t> r) {
      if (r)
        ++right;
      else
        overloaded += r.error().code() == par::Errc::overloaded;
    });
  loop.run();
  BOOST_TEST(right == 4);
  BOOST_TEST(overloaded == 6);
}

// ---- ends ----

BOOST_AUTO_TEST_CASE(a_pool_may_be_destroyed_inside_its_own_callback) {
  par::Reactor loop;
  auto pool = std::make_unique<par::Pool<int(int)>>(par::pool(loop, square, of(2)));
  int received = 0;
  int cancelled = 0;
  for (int i = 0; i < 100; ++i)
    pool->submit(i, [&](par::Result<int> r) {
      ++received;
      if (!r) cancelled += r.error().code() == par::Errc::cancelled;
      pool.reset();
    });
  loop.run();
  BOOST_TEST(received == 100);
  BOOST_TEST(cancelled == 99);
}

BOOST_AUTO_TEST_CASE(calls_of_a_dropped_pool_fail_from_the_loop) {
  reset();
  par::Reactor loop;
  std::vector<std::string> received;
  {
    auto pool = par::pool(loop, wait_for_gate, of(1));
    for (int i = 0; i < 3; ++i)
      pool.submit(i, [&](par::Result<int> r) { received.push_back(to_string(r.error().code())); });
    BOOST_TEST(testing::eventually([&] {
      turn(loop);
      return shared->begun[0] == 1;
    }));
  }
  BOOST_TEST(received.empty());
  loop.run();
  BOOST_TEST(received == std::vector<std::string>(3, "cancelled"),
             boost::test_tools::per_element());
  shared->open = true;
}

BOOST_AUTO_TEST_CASE(close_lets_all_calls_be_answered_and_then_ends_the_children) {
  par::Reactor loop;
  auto pool = par::pool(loop, square, of(2));
  std::vector<int> answers;
  for (int i = 0; i < 100; ++i) pool.submit(i, into(answers));
  pool.close();
  BOOST_CHECK_THROW(pool.submit(1, into(answers)), std::logic_error);
  loop.run();
  BOOST_TEST(answers.size() == 100u);
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    return pool.stats().workers.empty();
  }));
  // The exit reports have arrived.
  BOOST_TEST(pool.stats().usage.max_rss > 0);
}

BOOST_AUTO_TEST_CASE(shutdown_gives_running_calls_time) {
  // More time than the tasks need, and less: in the first case they return when the last call has been cancelled, in
  // the second never.
  for (const bool enough : {true, false}) {
    reset();
    par::Reactor loop;
    par::PoolOptions options = of(2);
    options.child.grace = 20ms;
    auto pool = par::pool(loop, wait_for_gate, options);
    std::map<int, std::string> received;
    for (int i = 0; i < 4; ++i)
      pool.submit(i, [&, i](par::Result<int> r) {
        received[i] = r ? "right" : to_string(r.error().code());
        if (i == 3) shared->open = enough;
      });
    BOOST_TEST(testing::eventually([&] {
      turn(loop);
      return shared->begun[0] == 1 && shared->begun[1] == 1;
    }));
    pool.shutdown(enough ? std::chrono::milliseconds(1h) : 20ms);
    BOOST_CHECK_THROW(pool.submit(1, [](par::Result<int>) {}), std::logic_error);
    loop.run();
    for (int i = 0; i < 4; ++i)
      BOOST_TEST(received[i] == (enough && i < 2 ? "right" : "cancelled"));
    BOOST_TEST(shared->begun[2] == 0);
  }
}

BOOST_AUTO_TEST_CASE(a_pool_may_outlive_its_reactor) {
  par::Pool<int(int)> pool;
  par::Call call;
  {
    par::Reactor loop;
    pool = par::pool(loop, square, of(2));
    call = pool.submit(1, [](par::Result<int>) { BOOST_TEST(false); });
  }
  call.cancel();
  BOOST_CHECK_THROW(pool.submit(1, [](par::Result<int>) {}), std::logic_error);
  BOOST_TEST(pool.pending() == 0u);
  BOOST_TEST(pool.stats().workers.empty());
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_callback_is_thrown_out_of_run_and_loses_no_call) {
  par::Reactor loop;
  auto pool = par::pool(loop, square, of(2));
  int received = 0;
  for (int i = 0; i < 100; ++i)
    pool.submit(i, [&](par::Result<int>) {
      if (++received == 10) throw std::runtime_error("mine");
    });
  BOOST_CHECK_THROW(loop.run(), std::runtime_error);
  loop.run();
  BOOST_TEST(received == 100);
}

BOOST_AUTO_TEST_CASE(an_idle_pool_does_not_keep_run_from_returning) {
  par::Reactor loop;
  par::PoolOptions options = of(3);
  options.min_workers = 3;
  auto pool = par::pool(loop, square, options);
  loop.run();
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    const auto workers = pool.stats().workers;
    return std::count_if(workers.begin(), workers.end(), [](const auto& w) { return w.ready; }) ==
           3;
  }));
  loop.run();
}

// ---- children ----

BOOST_AUTO_TEST_CASE(on_start_runs_once_in_each_child_before_its_first_call) {
  reset();
  static int base = 0;
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.on_start = par::bind(
      [](const std::string& text) {
        base += static_cast<int>(text.size());
        ++shared->starts;
      },
      "four");
  auto pool = par::pool(
      loop, [](int x) { return base + x; }, options);
  int right = 0;
  for (int i = 0; i < 100; ++i)
    pool.submit(i, [&, i](par::Result<int> r) { right += r.value() == 4 + i; });
  loop.run();
  BOOST_TEST(right == 100);
  BOOST_TEST(shared->starts >= 1);
  BOOST_TEST(shared->starts <= static_cast<int>(pool.stats().started));
  BOOST_TEST(base == 0);
}

BOOST_AUTO_TEST_CASE(a_failing_on_start_is_repeated_and_no_call_is_lost) {
  reset();
  shared->failures_left = 3;
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.child.on_start = [] {
    ++shared->starts;
    if (shared->failures_left-- > 0) throw std::runtime_error("no licence");
  };
  auto pool = par::pool(loop, square, options);
  int right = 0;
  for (int i = 0; i < 10; ++i)
    pool.submit(i, [&, i](par::Result<int> r) { right += r.value() == i * i; });
  loop.run();
  BOOST_TEST(right == 10);
  BOOST_TEST(shared->starts == 4);
}

BOOST_AUTO_TEST_CASE(calls_fail_with_the_reason_after_too_many_failed_starts) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.max_failed_starts = 3;
  options.child.on_start = [] {
    ++shared->starts;
    throw std::runtime_error("no licence");
  };
  auto pool = par::pool(loop, square, options);
  std::vector<par::Error> errors;
  for (int i = 0; i < 5; ++i)
    pool.submit(i, [&](par::Result<int> r) { errors.push_back(r.error()); });
  loop.run();
  BOOST_REQUIRE(errors.size() == 5u);
  for (const par::Error& error : errors) {
    BOOST_TEST((error.code() == par::Errc::unhealthy));
    BOOST_TEST((error.delivery() == par::Delivery::not_sent));
    BOOST_TEST(testing::has(error.what(), "unhealthy: 3 children in a row"));
    BOOST_TEST(testing::has(error.what(), "no licence"));
  }
  BOOST_TEST(shared->starts >= 3);
  BOOST_TEST(pool.stats().started <= 4u);  // both children may be starting
  // For a time that increases, they are refused at once.
  BOOST_TEST(testing::eventually([&] {
    const auto before = pool.stats().started;
    errors.clear();
    pool.submit(1, [&](par::Result<int> r) { errors.push_back(r.error()); });
    loop.run();
    return errors.size() == 1 && pool.stats().started == before;
  }));
}

BOOST_AUTO_TEST_CASE(a_child_that_ends_before_its_first_call_is_a_failed_start) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.max_failed_starts = 2;
  options.child.on_start = [] { std::exit(3); };
  auto pool = par::pool(loop, square, options);
  std::optional<par::Error> error;
  pool.submit(1, [&](par::Result<int> r) { error = r.error(); });
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::unhealthy));
  BOOST_REQUIRE(error->exit().has_value());
  BOOST_TEST(error->exit()->code() == 3);
  // A child of the previous case may still begin, so the test does not count children.
  BOOST_TEST(pool.stats().started == 2u);
}

BOOST_AUTO_TEST_CASE(max_calls_is_kept_and_no_call_waits_for_a_start) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.max_calls = 8;
  options.child.on_start = [] { ++shared->starts; };
  auto pool = par::pool(
      loop, [](int) { return static_cast<int>(::getpid()); }, options);
  std::map<int, int> calls_of;
  std::vector<bool> ready_at_end;
  std::function<void(int)> next = [&](int left) {
    pool.submit(0, [&, left](par::Result<int> r) {
      ++calls_of[r.value()];
      if (left > 1) next(left - 1);
    });
  };
  next(80);
  loop.run();
  int calls = 0;
  for (const auto& [pid, count] : calls_of) {
    BOOST_TEST(count <= 8);
    calls += count;
  }
  BOOST_TEST(calls == 80);
  BOOST_TEST(calls_of.size() >= 10u);
  BOOST_TEST(pool.stats().recycled >= 9u);
}

BOOST_AUTO_TEST_CASE(a_child_at_max_calls_may_finish_its_last_call_slowly) {
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.max_calls = 1;
  options.child.linger = 1ms;
  options.child.grace = 1ms;
  auto pool = par::pool(
      loop,
      [](int) {
        ::usleep(50000);
        return static_cast<int>(::getpid());
      },
      options);
  std::set<int> pids;
  for (int i = 0; i < 6; ++i) pool.submit(i, [&](par::Result<int> r) { pids.insert(r.value()); });
  loop.run();
  BOOST_TEST(pids.size() == 6u);
}

BOOST_AUTO_TEST_CASE(the_replacement_is_ready_before_the_old_one_retires) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.max_age = 30ms;
  // The second child starts when the case allows it.
  options.child.on_start = [] {
    if (shared->starts++ == 1)
      while (!shared->open) ::usleep(100);
  };
  auto pool = par::pool(
      loop, [](int) { return static_cast<int>(::getpid()); }, options);
  std::vector<int> pids;
  int since_start = 0;
  // The old child still answers calls while the new one starts.
  std::function<void()> next = [&] {
    pool.submit(0, [&](par::Result<int> r) {
      pids.push_back(r.value());
      if (shared->starts >= 2) ++since_start;
      if (since_start == 20) shared->open = true;
      if (pids.front() == pids.back()) next();
    });
  };
  next();
  loop.run();
  BOOST_TEST(since_start > 20);
  BOOST_TEST(std::set<int>(pids.begin(), pids.end()).size() == 2u);
}

BOOST_AUTO_TEST_CASE(a_growing_child_is_replaced) {
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.max_rss_growth = std::size_t{20} << 20;
  auto pool = par::pool(
      loop,
      [](int) {
        static std::vector<std::unique_ptr<std::string>> leaked;
        leaked.push_back(std::make_unique<std::string>(std::size_t{4} << 20, 'x'));
        return static_cast<int>(::getpid());
      },
      options);
  std::vector<int> pids;
  std::function<void()> next = [&] {
    pool.submit(0, [&](par::Result<int> r) {
      pids.push_back(r.value());
      if (pids.front() == pids.back() && pids.size() < 500) next();
    });
  };
  next();
  loop.run();
  BOOST_TEST(pids.front() != pids.back());
  BOOST_TEST(pool.stats().recycled == 1u);
}

BOOST_AUTO_TEST_CASE(idle_children_end_except_those_that_are_kept) {
  par::Reactor loop;
  par::PoolOptions options = of(4);
  options.min_workers = 1;
  options.idle_timeout = 20ms;
  auto pool = par::pool(
      loop,
      [](int) {
        ::usleep(2000);
        return 0;
      },
      options);
  for (int i = 0; i < 40; ++i) pool.submit(0, [](par::Result<int> r) { r.value(); });
  loop.run();
  BOOST_TEST(pool.stats().started >= 4u);
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    return pool.stats().workers.size() == 1;
  }));
  for (int i = 0; i < 50; ++i) turn(loop);
  BOOST_TEST(pool.stats().workers.size() == 1u);
}

BOOST_AUTO_TEST_CASE(a_pool_may_have_children_of_several_snapshots) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(4);
  options.snapshots = {&par::default_snapshot(), second_snapshot.get()};
  auto pool = par::pool(
      loop,
      [](int) {
        ++shared->begun[which_snapshot];
        // Until a child of the other snapshot runs, too: otherwise the first child may execute all calls.
        while (shared->begun[3 - which_snapshot] == 0) ::usleep(100);
        return which_snapshot;
      },
      options);
  std::map<int, int> counts;
  for (int i = 0; i < 100; ++i) pool.submit(i, [&](par::Result<int> r) { ++counts[r.value()]; });
  loop.run();
  BOOST_TEST(counts[1] > 0);
  BOOST_TEST(counts[2] > 0);
  BOOST_TEST(counts[1] + counts[2] == 100);
}

BOOST_AUTO_TEST_CASE(a_pool_survives_the_death_of_one_replica) {
  par::SnapshotOptions two;
  two.replicas = 2;
  par::Snapshot snapshot(two);
  const std::vector<pid_t> replicas = snapshot.pids();
  std::vector<pid_t> lost;
  snapshot.on_lost([&](const par::ExitStatus& status) { lost.push_back(status.pid); });
  par::Reactor loop;
  par::PoolOptions options = of(4);
  options.child.snapshot = &snapshot;
  options.child.retries = 5;
  options.child.idempotent = true;
  reset();
  auto pool = par::pool(
      loop,
      [](int) {
        const int parent = ::getppid();
        int first = 0;
        // Until a child of the other replica runs, too: otherwise the first child may execute all calls.
        if (!shared->first_parent.compare_exchange_strong(first, parent) && first != parent)
          shared->open = true;
        while (!shared->open) ::usleep(100);
        return parent;
      },
      options);
  std::set<pid_t> parents;
  const auto receive = [&](par::Result<int> r) { parents.insert(r.value()); };
  for (int i = 0; i < 40; ++i) pool.submit(i, receive);
  loop.run();
  BOOST_TEST(parents == std::set<pid_t>(replicas.begin(), replicas.end()));

  int left = 40;
  for (int i = 0; i < 40; ++i)
    pool.submit(i, [&](par::Result<int> r) {
      BOOST_TEST(r.has_value());
      if (--left == 30) ::kill(replicas[0], SIGKILL);
    });
  loop.run();
  BOOST_TEST(left == 0);
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    return lost == std::vector<pid_t>{replicas[0]};
  }));
  parents.clear();
  for (int i = 0; i < 40; ++i) pool.submit(i, receive);
  loop.run();
  BOOST_TEST(parents.count(replicas[0]) == 0u);
  pool.close();
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    return pool.stats().workers.empty();
  }));
}

BOOST_AUTO_TEST_CASE(children_are_started_as_they_are_needed) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, wait_for_gate, of(3));
  for (int i = 0; i < 5; ++i) turn(loop);
  BOOST_TEST(pool.stats().started == 0u);
  std::vector<int> answers;
  pool.submit(0, into(answers));
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    return shared->begun[0] == 1;
  }));
  BOOST_TEST(pool.stats().started == 1u);
  for (int i = 1; i < 6; ++i) pool.submit(i, into(answers));
  BOOST_TEST(testing::eventually([&] {
    turn(loop);
    return shared->begun[1] + shared->begun[2] == 2;
  }));
  BOOST_TEST(pool.stats().started == 3u);
  shared->open = true;
  loop.run();
  BOOST_TEST(answers.size() == 6u);
  BOOST_TEST(pool.stats().started == 3u);
}

BOOST_AUTO_TEST_CASE(stats_add_up) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x % 10 == 0) throw std::runtime_error("ten");
        ::usleep(200);
        return x;
      },
      of(2));
  int received = 0;
  for (int i = 0; i < 100; ++i)
    pool.submit(i, [&](par::Result<int>) {
      ++received;
      const par::PoolStats stats = pool.stats();
      BOOST_TEST(stats.queued + stats.running + stats.done + stats.failed == 100u);
      BOOST_TEST(stats.done + stats.failed == static_cast<std::uint64_t>(received));
    });
  loop.run();
  const par::PoolStats stats = pool.stats();
  BOOST_TEST(stats.done == 90u);
  BOOST_TEST(stats.failed == 10u);
  BOOST_TEST(stats.queued == 0u);
  BOOST_TEST(stats.running == 0u);
  std::uint64_t calls = 0;
  for (const auto& worker : stats.workers) {
    calls += worker.calls;
    BOOST_TEST(worker.pid > 0);
    BOOST_TEST(worker.rss > 0u);
  }
  BOOST_TEST(calls == 100u);
  BOOST_TEST((stats.run.p50 >= 200us));
  BOOST_TEST((stats.run.p50 <= stats.run.p90));
  BOOST_TEST((stats.run.p90 <= stats.run.p99));
  BOOST_TEST((stats.wait.p50 > 0us));
}

// The last case: it stops a snapshot.
BOOST_AUTO_TEST_CASE(a_pool_whose_only_snapshot_is_lost_fails_its_calls) {
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.snapshots = {second_snapshot.get(), &par::default_snapshot()};
  auto both = par::pool(loop, square, options);
  options.snapshots = {second_snapshot.get()};
  auto one = par::pool(loop, square, options);
  second_snapshot->stop();
  std::optional<par::Error> error;
  one.submit(3, [&](par::Result<int> r) { error = r.error(); });
  int right = 0;
  for (int i = 0; i < 10; ++i)
    both.submit(i, [&, i](par::Result<int> r) { right += r.value() == i * i; });
  loop.run();
  BOOST_TEST(right == 10);
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->delivery() == par::Delivery::not_sent));
  BOOST_TEST((error->code() == par::Errc::no_snapshot));
  testing::forget_child(second_snapshot->pid());
}
