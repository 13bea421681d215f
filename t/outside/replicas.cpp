// replicas.cpp - snapshots of several processes: the order of their turns, and the effects of a lost one.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

namespace par = evparallel;
using testing::ask;
using testing::descriptors_of;
using testing::error_of;
using testing::gone;
using testing::has;
using testing::in;
using testing::loop_until;
using namespace std::chrono_literals;

namespace {

using Strings = std::vector<std::string>;

par::SnapshotOptions of(unsigned replicas) {
  par::SnapshotOptions options;
  options.name = "wine list";
  options.replicas = replicas;
  return options;
}

pid_t replica_of_this_child() {
  return ::getppid();
}

int twice(int x) {
  return 2 * x;
}

void kill_and_wait(pid_t pid) {
  ::kill(pid, SIGKILL);
  BOOST_TEST(gone(pid));
}

}  // namespace

// ---- turns ----

BOOST_AUTO_TEST_CASE(zero_replicas_are_misuse) {
  BOOST_CHECK_THROW(par::Snapshot{of(0)}, std::logic_error);
  BOOST_TEST(testing::children_of(::getpid()).empty());
}

BOOST_AUTO_TEST_CASE(one_replica_is_an_ordinary_snapshot) {
  {
    par::Snapshot snapshot;
    BOOST_TEST(snapshot.pids() == std::vector<pid_t>{snapshot.pid()},
               boost::test_tools::per_element());
    par::Snapshot from = std::move(snapshot);
    BOOST_TEST(snapshot.pids().empty());
    BOOST_TEST(from.pids().size() == 1u);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(children_are_forked_from_each_replica_in_turn) {
  {
    par::Snapshot snapshot(of(3));
    const std::vector<pid_t> pids = snapshot.pids();
    BOOST_REQUIRE(pids.size() == 3u);
    BOOST_TEST(snapshot.pid() == pids[0]);
    BOOST_TEST((pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2]));
    par::Reactor loop;
    std::vector<par::Remote<pid_t()>> remotes;
    std::vector<pid_t> from;
    for (int i = 0; i < 6; ++i) {
      remotes.push_back(par::run(loop, replica_of_this_child, in(snapshot)));
      from.push_back(ask(loop, remotes.back()));
    }
    for (std::size_t i = 0; i < from.size(); ++i) BOOST_TEST(from[i] == pids[i % 3]);
    // Processes take turns, too.
    auto p = par::process(
        loop, [](par::Pipe<int, pid_t> pipe) { pipe.send(::getppid()); }, in(snapshot));
    pid_t of_process = 0;
    p.on_message([&](pid_t x) {
      of_process = x;
      p.close();
    });
    loop.run();
    BOOST_TEST(of_process == pids[0]);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_child_sees_only_the_replica_that_forked_it) {
  {
    par::Snapshot snapshot(of(2));
    par::Reactor loop;
    for (int i = 0; i < 2; ++i) {
      auto f = par::run(
          loop,
          [](int count) {
            int right = 0;
            const std::vector<pid_t> pids = par::default_snapshot().pids();
            if (pids != std::vector<pid_t>{::getppid()}) return -1;
            for (int k = 0; k < count; ++k) {
              auto g = par::run(par::this_reactor(), replica_of_this_child);
              g([&right](par::Result<pid_t> r) { right += r.value() == ::getppid(); });
              par::this_reactor().run();
            }
            return right;
          },
          in(snapshot));
      int right = 0;
      f(3, [&](par::Result<int> r) { right = r.value(); });
      loop.run();
      BOOST_TEST(right == 3);
    }
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(each_replica_has_the_same_descriptors_and_none_of_another) {
  { par::Snapshot closes_what_earlier_ones_left; }
  const std::size_t before = testing::count_descriptors();
  {
    par::Snapshot snapshot(of(4));
    BOOST_TEST(testing::count_descriptors() == before + 4);
    // The control socket, the signals, and both ends of the rendezvous socket.
    for (const pid_t pid : snapshot.pids())
      BOOST_TEST(testing::eventually([&] { return descriptors_of(pid).size() == before + 4; }));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(cancellations_reach_the_children_of_all_replicas) {
  {
    par::Snapshot snapshot(of(2));
    par::Reactor loop;
    par::Options options = in(snapshot);
    options.deadline = 30000ms;
    int reported = 0;
    for (int i = 0; i < 2; ++i) {
      auto f = par::run(
          loop, [] { return par::this_call::remaining() <= 30s; }, options);
      f([&](par::Result<bool> r) { reported += r.value(); });
      loop.run();
    }
    BOOST_TEST(reported == 2);
    // A task that computes sees that its call was cancelled, and its child lives on.
    options.deadline = 0ms;
    options.grace = 1h;
    for (int i = 0; i < 2; ++i) {
      auto f = par::run(
          loop,
          [](int spins) {
            while (spins && !par::this_call::cancelled()) {}
            return static_cast<int>(::getpid());
          },
          options);
      int pid = 0;
      f(0, [&](par::Result<int> r) { pid = r.value(); });
      loop.run();
      par::Call call =
          f(1, [](par::Result<int> r) { BOOST_TEST((r.error().code() == par::Errc::cancelled)); });
      par::Timer soon = loop.after(20ms, [&] { call.cancel(); });
      loop.run();
      int answer = -1;
      f(0, [&](par::Result<int> r) { answer = r.value(); });
      loop.run();
      BOOST_TEST(answer == pid);
    }
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(no_replica_is_left_if_one_cannot_be_forked) {
  const int status = testing::elsewhere([] {
    // Room for two more: a pair of sockets, of which one is kept.
    const rlimit limit{64, 64};
    ::setrlimit(RLIMIT_NOFILE, &limit);
    std::vector<int> taken;
    for (int fd; (fd = ::dup(STDIN_FILENO)) >= 0;) taken.push_back(fd);
    for (int i = 0; i < 2; ++i) ::close(taken[static_cast<std::size_t>(i)]);
    const auto error = error_of([] { par::Snapshot snapshot(of(2)); });
    if (!error || error->code() != par::Errc::spawn_failed || error->os_error() != EMFILE) return 1;
    const bool none = testing::eventually([] {
      const std::vector<pid_t> left = testing::children_of(::getpid());
      return std::none_of(left.begin(), left.end(), testing::process_exists);
    });
    return none ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(all_replicas_end_with_the_parent) {
  int ends[2];
  BOOST_REQUIRE(::pipe(ends) == 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    const std::size_t before = testing::count_descriptors();
    par::Snapshot snapshot(of(3));
    testing::eventually([&] { return descriptors_of(snapshot.pids()[1]).size() == before + 4; });
    ::kill(snapshot.pids()[1], SIGSTOP);
    if (::write(ends[1], snapshot.pids().data(), 3 * sizeof(pid_t)) < 0) ::_exit(1);
    for (;;) ::pause();
  }
  std::vector<pid_t> pids(3);
  BOOST_TEST(::read(ends[0], pids.data(), 3 * sizeof(pid_t)) ==
             static_cast<ssize_t>(3 * sizeof(pid_t)));
  ::close(ends[0]);
  ::close(ends[1]);
  ::kill(parent, SIGKILL);
  for (const pid_t pid : pids) BOOST_TEST(gone(pid));
}

// ---- effects of a lost replica ----

BOOST_AUTO_TEST_CASE(the_other_replicas_take_over) {
  {
    par::Snapshot snapshot(of(2));
    const std::vector<pid_t> pids = snapshot.pids();
    par::Reactor loop;
    std::vector<par::ExitStatus> lost;
    snapshot.on_lost([&](const par::ExitStatus& status) { lost.push_back(status); });
    auto f = par::run(loop, replica_of_this_child, in(snapshot));
    BOOST_TEST(ask(loop, f) == pids[0]);
    ::kill(pids[0], SIGKILL);
    BOOST_TEST(loop_until(loop, [&] { return !lost.empty(); }));
    // A Remote whose child was lost with it asks the other replica; so does a Remote that asks for the first time.
    BOOST_TEST(ask(loop, f) == pids[1]);
    for (int i = 0; i < 3; ++i) {
      auto g = par::run(loop, replica_of_this_child, in(snapshot));
      BOOST_TEST(ask(loop, g) == pids[1]);
    }
    BOOST_TEST(snapshot.alive());
    BOOST_TEST(snapshot.pids() == pids, boost::test_tools::per_element());
    BOOST_REQUIRE(lost.size() == 1u);
    BOOST_TEST(lost[0].pid == pids[0]);
    BOOST_TEST(lost[0].signalled());
    BOOST_TEST(lost[0].signal() == SIGKILL);
  }
  testing::close_abandoned();
}

// The loop has had no turn to notice it.
BOOST_AUTO_TEST_CASE(a_dead_replica_is_not_asked_for_a_child) {
  {
    par::Snapshot snapshot(of(3));
    const std::vector<pid_t> pids = snapshot.pids();
    par::Reactor loop;
    auto first = par::run(loop, replica_of_this_child, in(snapshot));
    BOOST_TEST(ask(loop, first) == pids[0]);
    kill_and_wait(pids[1]);
    std::map<pid_t, int> answers;
    std::vector<par::Process<pid_t, int>> processes;
    for (int i = 0; i < 4; ++i) {
      processes.push_back(par::process(
          loop, [](par::Pipe<int, pid_t> pipe) { pipe.send(::getppid()); }, in(snapshot)));
      processes.back().on_message([&](pid_t pid) { ++answers[pid]; });
      processes.back().on_exit([&](const par::ExitStatus& s) {
        BOOST_TEST(par::to_string(s.cause) == par::to_string(par::Cause::normal));
      });
      processes.back().close();
    }
    std::vector<par::Remote<pid_t()>> remotes;
    for (int i = 0; i < 10; ++i) {
      remotes.push_back(par::run(loop, replica_of_this_child, in(snapshot)));
      remotes.back()([&](par::Result<pid_t> r) { ++answers[r ? *r : -1]; });
    }
    loop.run();
    BOOST_TEST(answers.size() == 2u);
    BOOST_TEST(answers[pids[0]] == 7);
    BOOST_TEST(answers[pids[2]] == 7);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(losing_one_replica_fails_only_calls_in_its_children) {
  constexpr int remotes_count = 8;
  constexpr int calls = 300;
  {
    par::Snapshot snapshot(of(2));
    const std::vector<pid_t> pids = snapshot.pids();
    par::Reactor loop;
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
    std::vector<par::Remote<int(int)>> remotes;
    int right[remotes_count] = {};
    int lost[remotes_count] = {};
    int answered = 0;
    for (int i = 0; i < remotes_count; ++i) remotes.push_back(par::run(loop, twice, in(snapshot)));
    const auto call = [&](int i, int x) {
      remotes[static_cast<std::size_t>(i)](x, [&, i, x](par::Result<int> r) {
        if (++answered == calls) ::kill(pids[0], SIGKILL);
        if (r)
          right[i] += *r == 2 * x;
        else
          lost[i] += r.error().code() == par::Errc::snapshot_lost;
      });
    };
    for (int x = 0; x < calls; ++x)
      for (int i = 0; i < remotes_count; ++i) call(i, x);
    loop.run();
    int lost_at_all = 0;
    for (int i = 0; i < remotes_count; ++i) {
      BOOST_TEST(right[i] + lost[i] == calls);
      if (i % 2 == 1) BOOST_TEST(lost[i] == 0);
      lost_at_all += lost[i];
    }
    BOOST_TEST(lost_at_all < answered);
    // Afterwards all Remotes work, whichever replica has forked their children.
    BOOST_TEST(loop_until(loop, [&] { return losses == 1; }));
    const int before = answered;
    for (int i = 0; i < remotes_count; ++i) {
      right[i] = 0;
      call(i, 1);
    }
    loop.run();
    BOOST_TEST(answered == before + remotes_count);
    for (const int one : right) BOOST_TEST(one == 1);
    BOOST_TEST(losses == 1);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(repeatable_calls_are_repeated_in_children_of_another_replica) {
  {
    par::Snapshot snapshot(of(2));
    const std::vector<pid_t> pids = snapshot.pids();
    par::Reactor loop;
    par::Options options = in(snapshot);
    options.retries = 1;
    options.idempotent = true;
    auto f = par::run(
        loop,
        [](pid_t unwanted) {
          while (::getppid() == unwanted) ::pause();
          return ::getppid();
        },
        options);
    pid_t from = 0;
    f(pids[0], [&](par::Result<pid_t> r) { from = r ? *r : -1; });
    par::Timer soon = loop.every(1ms, [&] {
      if (f.pid() == 0) return;
      ::kill(pids[0], SIGKILL);
      soon.cancel();
    });
    loop.run();
    BOOST_TEST(from == pids[1]);
  }
  testing::close_abandoned();
}

// The requests that it had not read are lost with it.
BOOST_AUTO_TEST_CASE(a_lost_replica_fails_only_its_own_pending_spawns) {
  {
    par::Snapshot snapshot(of(2));
    const std::vector<pid_t> pids = snapshot.pids();
    par::Reactor loop;
    ::kill(pids[0], SIGSTOP);
    std::vector<par::Remote<pid_t()>> remotes;
    std::map<std::string, int> received;
    for (int i = 0; i < 6; ++i) {
      remotes.push_back(par::run(loop, replica_of_this_child, in(snapshot)));
      remotes.back()([&](par::Result<pid_t> r) {
        ++received[r ? std::to_string(*r) : par::to_string(r.error().code())];
        if (received[std::to_string(pids[1])] == 3) ::kill(pids[0], SIGKILL);
      });
    }
    loop.run();
    BOOST_TEST(received.size() == 2u);
    BOOST_TEST(received[std::to_string(pids[1])] == 3);
    BOOST_TEST(received["snapshot_lost"] == 3);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(spawns_fail_when_all_replicas_are_lost) {
  {
    par::Snapshot snapshot(of(3));
    par::Reactor loop;
    std::vector<pid_t> lost;
    snapshot.on_lost([&](const par::ExitStatus& status) { lost.push_back(status.pid); });
    auto f = par::run(loop, replica_of_this_child, in(snapshot));
    BOOST_TEST(ask(loop, f) == snapshot.pid());
    for (const pid_t pid : snapshot.pids()) {
      BOOST_TEST(snapshot.alive());
      kill_and_wait(pid);
      BOOST_TEST(
          loop_until(loop, [&] { return std::find(lost.begin(), lost.end(), pid) != lost.end(); }));
    }
    BOOST_TEST(lost == snapshot.pids(), boost::test_tools::per_element());
    BOOST_TEST(!snapshot.alive());
    Strings received;
    for (int i = 0; i < 2; ++i) {
      auto g = par::run(loop, replica_of_this_child, in(snapshot));
      g([&](par::Result<pid_t> r) {
        BOOST_TEST((r.error().code() == par::Errc::snapshot_lost));
        BOOST_TEST((r.error().delivery() == par::Delivery::not_sent));
        received.push_back(r.error().what());
      });
      loop.run();
    }
    BOOST_REQUIRE(received.size() == 2u);
    BOOST_TEST(has(received[0], "wine list"), received[0]);
    BOOST_TEST(has(received[0], "so are all 3 replicas"), received[0]);
  }
  testing::close_abandoned();
}

// ---- reports of losses ----

BOOST_AUTO_TEST_CASE(a_loss_before_the_first_use_is_reported_at_the_first_use) {
  {
    par::Snapshot snapshot(of(2));
    std::vector<par::ExitStatus> lost;
    snapshot.on_lost([&](const par::ExitStatus& status) { lost.push_back(status); });
    kill_and_wait(snapshot.pids()[1]);
    BOOST_TEST(snapshot.alive());
    par::Reactor loop;
    par::Timer turn = loop.after(1ms, [] {});
    loop.run();
    BOOST_TEST(lost.empty());
    auto f = par::run(loop, twice, in(snapshot));
    BOOST_TEST(lost.empty());  // never from inside the call
    int answer = 0;
    f(4, [&](par::Result<int> r) { answer = r.value(); });
    BOOST_TEST(loop_until(loop, [&] { return !lost.empty() && answer != 0; }));
    BOOST_TEST(answer == 8);
    BOOST_REQUIRE(lost.size() == 1u);
    BOOST_TEST(lost[0].pid == snapshot.pids()[1]);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_loss_that_affects_calls_is_reported_in_the_same_run) {
  {
    par::Snapshot snapshot;
    par::Reactor loop;
    Strings received;
    snapshot.on_lost([&](const par::ExitStatus& status) {
      received.push_back("lost");
      BOOST_TEST((status.cause == par::Cause::crash));
      BOOST_TEST(has(status.describe(), "SIGSEGV"));
      BOOST_TEST(status.usage.max_rss > 0);
    });
    auto f = par::run(
        loop,
        [](int x) {
          ::kill(::getppid(), SIGSEGV);
          for (;;) ::pause();
          return x;
        },
        in(snapshot));
    f(1, [&](par::Result<int> r) { received.push_back(par::to_string(r.error().code())); });
    // The handler of a sanitizer does not exist in a snapshot: all dispositions there are the default ones.
    loop.run();
    BOOST_TEST(received == (Strings{"snapshot_lost", "lost"}), boost::test_tools::per_element());
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(an_on_lost_set_late_is_called_and_run_does_not_wait_without_one) {
  {
    par::Snapshot snapshot(of(2));
    const pid_t dead = snapshot.pids()[1];
    par::Reactor loop;
    auto f = par::run(loop, twice, in(snapshot));
    kill_and_wait(dead);
    BOOST_TEST(loop_until(loop, [&] {
      const std::vector<pid_t> left = testing::children_of(::getpid());
      return std::find(left.begin(), left.end(), dead) == left.end();
    }));
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus& status) { losses += status.pid == dead; });
    BOOST_TEST(losses == 0);
    loop.run();
    BOOST_TEST(losses == 1);
    loop.run();
    BOOST_TEST(losses == 1);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_loss_missed_by_one_reactor_is_reported_by_the_next) {
  {
    par::Snapshot snapshot(of(2));
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
    {
      par::Reactor loop;
      auto f = par::run(loop, twice, in(snapshot));
      kill_and_wait(snapshot.pids()[1]);
    }
    BOOST_TEST(losses == 0);
    par::Reactor loop;
    auto f = par::run(loop, twice, in(snapshot));
    BOOST_TEST(loop_until(loop, [&] { return losses == 1; }));
    BOOST_TEST(losses == 1);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_stopped_snapshot_is_not_reported_as_lost) {
  {
    par::Snapshot snapshot(of(2));
    const std::vector<pid_t> pids = snapshot.pids();
    par::Reactor loop;
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
    auto f = par::run(loop, replica_of_this_child, in(snapshot));
    BOOST_TEST(ask(loop, f) == pids[0]);
    snapshot.stop();
    BOOST_TEST(!snapshot.alive());
    f = {};
    for (const pid_t pid : pids) BOOST_TEST(gone(pid));
    loop_until(loop, [&] { return testing::children_of(::getpid()).empty(); });
    BOOST_TEST(losses == 0);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(on_lost_may_destroy_the_handle_or_replace_itself) {
  {
    std::optional<par::Snapshot> snapshot(of(3));
    const std::vector<pid_t> pids = snapshot->pids();
    par::Reactor loop;
    auto f = par::run(loop, twice, in(*snapshot));
    Strings received;
    snapshot->on_lost([&](const par::ExitStatus&) {
      received.push_back("first");
      snapshot->on_lost([&](const par::ExitStatus&) {
        received.push_back("second");
        snapshot.reset();
      });
    });
    kill_and_wait(pids[1]);
    BOOST_TEST(loop_until(loop, [&] { return received.size() == 1u; }));
    kill_and_wait(pids[2]);
    BOOST_TEST(loop_until(loop, [&] { return received.size() == 2u; }));
    // The replica that is left continues as long as its child lives.
    int answer = 0;
    f(2, [&](par::Result<int> r) { answer = r.value(); });
    loop.run();
    BOOST_TEST(answer == 4);
    BOOST_TEST(received == (Strings{"first", "second"}), boost::test_tools::per_element());
    f = {};
    BOOST_TEST(gone(pids[0]));
  }
  testing::close_abandoned();
}
