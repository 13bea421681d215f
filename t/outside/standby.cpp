// standby.cpp - a replica that waits to take over: a snapshot outlives tasks that kill their parent process.
#include "calling.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <map>

namespace par = evparallel;
using testing::ask;
using testing::descriptors_of;
using testing::gone;
using testing::has;
using testing::in;
using testing::loop_until;
using namespace std::chrono_literals;

namespace {

par::SnapshotOptions with_standby() {
  par::SnapshotOptions options;
  options.name = "wine list";
  options.standby = true;
  return options;
}

pid_t replica_of_this_child() {
  return ::getppid();
}

// A hostile task: 0 kills the process that has forked it.
int half(int x) {
  if (x == 0) {
    ::kill(::getppid(), SIGKILL);
    for (;;) ::pause();
  }
  return x / 2;
}

// Runs the loop until both processes live, and neither is one of `dead`.
bool whole(par::Reactor& loop, const par::Snapshot& snapshot, const std::vector<pid_t>& dead) {
  return loop_until(loop, [&] {
    const std::vector<pid_t> pids = snapshot.pids();
    return std::none_of(pids.begin(), pids.end(), [&](pid_t pid) {
      return std::find(dead.begin(), dead.end(), pid) != dead.end() ||
             !testing::process_exists(pid);
    });
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_standby_serves_nothing_until_the_active_replica_is_lost) {
  {
    par::Snapshot snapshot(with_standby());
    const std::vector<pid_t> before = snapshot.pids();
    BOOST_REQUIRE(before.size() == 2u);
    BOOST_TEST(snapshot.pid() == before[0]);
    par::Reactor loop;
    std::vector<par::ExitStatus> lost;
    snapshot.on_lost([&](const par::ExitStatus& status) { lost.push_back(status); });
    for (int i = 0; i < 4; ++i) {
      auto f = par::run(loop, replica_of_this_child, in(snapshot));
      BOOST_TEST(ask(loop, f) == before[0]);
    }
    // It takes over at once, even if the loop has not noticed the loss.
    ::kill(before[0], SIGKILL);
    BOOST_TEST(gone(before[0]));
    auto f = par::run(loop, replica_of_this_child, in(snapshot));
    BOOST_TEST(snapshot.pid() == before[1]);
    BOOST_TEST(snapshot.alive());
    BOOST_TEST(ask(loop, f) == before[1]);
    // The next standby is forked.
    BOOST_TEST(whole(loop, snapshot, {before[0]}));
    BOOST_TEST(loop_until(loop, [&] { return lost.size() == 1u; }));
    BOOST_TEST(lost[0].pid == before[0]);
    const std::vector<pid_t> now = snapshot.pids();
    BOOST_REQUIRE(now.size() == 2u);
    BOOST_TEST(now[0] == before[1]);
    BOOST_TEST(now[1] != before[0]);
    for (int i = 0; i < 4; ++i) {
      auto g = par::run(loop, replica_of_this_child, in(snapshot));
      BOOST_TEST(ask(loop, g) == now[0]);
    }
    BOOST_TEST(lost.size() == 1u);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_lost_standby_is_replaced) {
  {
    par::Snapshot snapshot(with_standby());
    const std::vector<pid_t> before = snapshot.pids();
    par::Reactor loop;
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
    auto f = par::run(loop, half, in(snapshot));
    BOOST_TEST(ask(loop, f, 4) == 2);
    ::kill(before[1], SIGKILL);
    BOOST_TEST(whole(loop, snapshot, {before[1]}));
    BOOST_TEST(snapshot.pid() == before[0]);
    BOOST_TEST(loop_until(loop, [&] { return losses == 1; }));
    BOOST_TEST(ask(loop, f, 4) == 2);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_standby_stands_in_for_any_replica) {
  {
    par::SnapshotOptions options = with_standby();
    options.replicas = 2;
    par::Snapshot snapshot(options);
    const std::vector<pid_t> before = snapshot.pids();
    BOOST_REQUIRE(before.size() == 3u);
    par::Reactor loop;
    auto f = par::run(loop, half, in(snapshot));
    ::kill(before[1], SIGKILL);
    BOOST_TEST(loop_until(loop, [&] { return snapshot.pids()[1] == before[2]; }));
    BOOST_TEST(whole(loop, snapshot, {before[1]}));
    std::map<pid_t, int> turns;
    for (int i = 0; i < 4; ++i) {
      auto g = par::run(loop, replica_of_this_child, in(snapshot));
      ++turns[ask(loop, g)];
    }
    BOOST_TEST(turns[before[0]] == 2);
    BOOST_TEST(turns[before[2]] == 2);
  }
  testing::close_abandoned();
}

// Each attempt of the call kills a process: the one that forks the next attempt has forked its successor before.
BOOST_AUTO_TEST_CASE(a_call_that_kills_its_parent_again_and_again_does_not_end_the_service) {
  constexpr int calls = 5;
  constexpr int retries = 3;
  {
    par::Snapshot snapshot(with_standby());
    par::Reactor loop;
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
    par::Options options = in(snapshot);
    options.retries = retries;
    options.idempotent = true;
    auto hostile = par::run(loop, half, options);
    auto friendly = par::run(loop, half, options);
    for (int i = 0; i < calls; ++i) {
      std::optional<par::Error> error;
      hostile(0, [&](par::Result<int> r) { error = r.error(); });
      loop.run();
      BOOST_REQUIRE(error.has_value());
      BOOST_TEST((error->code() == par::Errc::snapshot_lost), error->what());
      BOOST_TEST(has(error->what(), "was killed by SIGKILL, not by this library"), error->what());
      BOOST_TEST(snapshot.alive());
      BOOST_TEST(ask(loop, friendly, 84) == 42);
    }
    BOOST_TEST(loop_until(loop, [&] { return losses == calls * (1 + retries); }));
    BOOST_TEST(whole(loop, snapshot, {}));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(processes_that_kill_their_parent_do_not_end_the_service) {
  {
    par::Snapshot snapshot(with_standby());
    par::Reactor loop;
    for (int i = 0; i < 8; ++i) {
      auto hostile = par::process(
          loop, [](par::Pipe<int, int>) { half(0); }, in(snapshot));
      std::optional<par::ExitStatus> how;
      hostile.on_exit([&](const par::ExitStatus& status) { how = status; });
      loop.run();
      BOOST_REQUIRE(how.has_value());
      BOOST_TEST((how->cause == par::Cause::snapshot_lost));
    }
    auto friendly = par::process(
        loop, [](par::Pipe<int, int> pipe) { pipe.send(42); }, in(snapshot));
    int answer = 0;
    friendly.on_message([&](int x) {
      answer = x;
      friendly.close();
    });
    loop.run();
    BOOST_TEST(answer == 42);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(calls_of_a_pool_that_kill_their_parent_do_not_end_the_pool) {
  constexpr int calls = 60;
  {
    par::Snapshot snapshot(with_standby());
    par::Reactor loop;
    par::PoolOptions options;
    options.workers = 3;
    options.child.snapshot = &snapshot;
    options.child.retries = 100;
    options.child.idempotent = true;
    auto pool = par::pool(loop, half, options);
    par::PoolOptions without_retries = options;
    without_retries.workers = 1;
    without_retries.child.retries = 0;
    auto hostile = par::pool(loop, half, without_retries);
    int right = 0;
    int killed = 0;
    std::string wrong;
    for (int i = 1; i <= calls; ++i) {
      pool.submit(2 * i, [&, i](par::Result<int> r) {
        if (r)
          right += *r == i;
        else
          wrong = r.error().what();
      });
      if (i % 10 == 0)
        hostile.submit(
            0, [&](par::Result<int> r) { killed += r.error().code() == par::Errc::snapshot_lost; });
    }
    loop.run();
    BOOST_TEST(wrong == "");
    BOOST_TEST(right == calls);
    BOOST_TEST(killed == calls / 10);
    BOOST_TEST(snapshot.alive());
    BOOST_TEST(whole(loop, snapshot, {}));
    pool.close();
    hostile.close();
    loop.run();
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(spares_are_kept_by_the_active_replica_alone) {
  {
    par::SnapshotOptions options = with_standby();
    options.spares = 2;
    par::Snapshot snapshot(options);
    const std::vector<pid_t> before = snapshot.pids();
    const auto spares_of = [](pid_t pid) { return testing::children_of(pid).size(); };
    BOOST_TEST(testing::eventually([&] { return spares_of(before[0]) == 2u; }));
    BOOST_TEST(spares_of(before[1]) == 0u);
    par::Reactor loop;
    auto f = par::run(loop, half, in(snapshot));
    ::kill(before[0], SIGKILL);
    BOOST_TEST(loop_until(loop, [&] { return spares_of(before[1]) == 2u; }));
    BOOST_TEST(whole(loop, snapshot, {before[0]}));
    BOOST_TEST(spares_of(snapshot.pids()[1]) == 0u);
    BOOST_TEST(ask(loop, f, 84) == 42);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_snapshot_that_has_lost_all_processes_says_so) {
  {
    par::Snapshot snapshot(with_standby());
    par::Reactor loop;
    auto f = par::run(loop, half, in(snapshot));
    BOOST_TEST(ask(loop, f, 84) == 42);
    for (const pid_t pid : snapshot.pids()) {
      ::kill(pid, SIGKILL);
      BOOST_TEST(gone(pid));
    }
    BOOST_TEST(loop_until(loop, [&] { return !snapshot.alive(); }));
    std::optional<par::Error> error;
    f(84, [&](par::Result<int> r) { error = r.error(); });
    loop.run();
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::snapshot_lost));
    BOOST_TEST(has(error->what(), "all 2 replicas are dead"), error->what());
    BOOST_TEST(has(error->what(), "take another snapshot"), error->what());
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_standby_ends_with_its_snapshot) {
  std::vector<pid_t> pids;
  {
    par::Snapshot snapshot(with_standby());
    pids = snapshot.pids();
    par::Reactor loop;
    auto f = par::run(loop, half, in(snapshot));
    BOOST_TEST(ask(loop, f, 84) == 42);
    snapshot.stop();
    BOOST_TEST(!snapshot.alive());
    BOOST_TEST(gone(pids[1]));
    BOOST_TEST(ask(loop, f, 4) == 2);
  }
  for (const pid_t pid : pids) BOOST_TEST(gone(pid));
  testing::close_abandoned();
}
