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
#include <functional>
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
    // Of each of them: a control socket, and an end of its rendezvous socket.
    BOOST_TEST(testing::count_descriptors() == before + 8);
    // In each of them: the control socket, the signals, and both ends of the rendezvous socket.
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
    BOOST_TEST(ask(loop, f) != pids[0]);
    for (int i = 0; i < 3; ++i) {
      auto g = par::run(loop, replica_of_this_child, in(snapshot));
      BOOST_TEST(ask(loop, g) != pids[0]);
    }
    BOOST_TEST(snapshot.alive());
    BOOST_TEST(snapshot.pids().size() == 2u);
    BOOST_TEST(snapshot.pids()[1] == pids[1]);
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
    BOOST_TEST(snapshot.alive());
    std::vector<pid_t> pids = snapshot.pids();
    for (const pid_t pid : pids) kill_and_wait(pid);
    BOOST_TEST(loop_until(loop, [&] { return lost.size() == 3u; }));
    BOOST_TEST(snapshot.pids() == pids, boost::test_tools::per_element());
    std::sort(lost.begin(), lost.end());
    std::sort(pids.begin(), pids.end());
    BOOST_TEST(lost == pids, boost::test_tools::per_element());
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
    BOOST_TEST(has(received[0], "was killed by SIGKILL, not by this library"), received[0]);
    BOOST_TEST(has(received[0], "all 3 replicas are dead, and none is left to fork another one"),
               received[0]);
  }
  testing::close_abandoned();
}

// ---- reports of losses ----

BOOST_AUTO_TEST_CASE(a_loss_before_the_first_use_is_reported_at_the_first_use) {
  {
    par::Snapshot snapshot(of(2));
    std::vector<par::ExitStatus> lost;
    snapshot.on_lost([&](const par::ExitStatus& status) { lost.push_back(status); });
    const pid_t dead = snapshot.pids()[1];
    kill_and_wait(dead);
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
    BOOST_TEST(lost[0].pid == dead);
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

// ---- replacements ----

namespace {

bool contains(const std::vector<pid_t>& pids, pid_t pid) {
  return std::find(pids.begin(), pids.end(), pid) != pids.end();
}

// Runs the loop until the process in this place is another one than `dead`.
bool replaced(par::Reactor& loop, const par::Snapshot& snapshot, std::size_t place, pid_t dead) {
  return loop_until(loop, [&] { return snapshot.pids().at(place) != dead; });
}

// Runs the loop until all of its processes live.
bool whole(par::Reactor& loop, const par::Snapshot& snapshot) {
  return loop_until(loop, [&] {
    const std::vector<pid_t> pids = snapshot.pids();
    return std::all_of(pids.begin(), pids.end(), testing::process_exists);
  });
}

// The sockets that a process has open, other than as standard streams.
Strings sockets_of(pid_t pid) {
  Strings sockets;
  for (const auto& [fd, target] : descriptors_of(pid))
    if (fd > STDERR_FILENO && has(target, "socket:")) sockets.push_back(target);
  std::sort(sockets.begin(), sockets.end());
  return sockets;
}

bool contains_any(const Strings& sockets, const Strings& others) {
  return std::any_of(others.begin(), others.end(), [&](const std::string& socket) {
    return std::find(sockets.begin(), sockets.end(), socket) != sockets.end();
  });
}

struct Origin {
  pid_t from = 0;
  std::uint64_t seed = 0;
};
EVPARALLEL_FIELDS(Origin, from, seed)

Origin origin_of_this_child() {
  return {::getppid(), par::child_seed()};
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_lost_replica_is_replaced_by_a_fork_of_a_living_one) {
  {
    par::SnapshotOptions options = of(3);
    options.seed = 5;
    par::Snapshot snapshot(options);
    const std::vector<pid_t> before = snapshot.pids();
    par::Reactor loop;
    std::vector<par::ExitStatus> lost;
    snapshot.on_lost([&](const par::ExitStatus& status) { lost.push_back(status); });
    auto f = par::run(loop, twice, in(snapshot));
    BOOST_TEST(ask(loop, f, 4) == 8);
    ::kill(before[1], SIGKILL);
    // The successor may serve before the lost one can be waited for.
    BOOST_TEST(replaced(loop, snapshot, 1, before[1]));
    BOOST_TEST(loop_until(loop, [&] { return !lost.empty(); }));
    const std::vector<pid_t> now = snapshot.pids();
    BOOST_TEST(now[0] == before[0]);
    BOOST_TEST(now[2] == before[2]);
    BOOST_REQUIRE(lost.size() == 1u);
    BOOST_TEST(lost[0].describe() == "snapshot process " + std::to_string(before[1]) +
                                         " was killed by SIGKILL, not by this library");
    // The lost one is reaped, and the new one is a child of this process, in a group of its own.
    const std::vector<pid_t> children = testing::children_of(::getpid());
    BOOST_TEST(!contains(children, before[1]));
    BOOST_TEST(contains(children, now[1]));
    BOOST_TEST(::getpgid(now[1]) == now[1]);
    // It takes its turns, and the seeds of its children are their own.
    std::map<pid_t, int> turns;
    std::map<std::uint64_t, int> seeds;
    for (int i = 0; i < 6; ++i) {
      auto g = par::run(loop, origin_of_this_child, in(snapshot));
      const Origin origin = ask(loop, g);
      ++turns[origin.from];
      ++seeds[origin.seed];
    }
    for (const pid_t pid : now) BOOST_TEST(turns[pid] == 2);
    BOOST_TEST(seeds.size() == 6u);
    BOOST_TEST(lost.size() == 1u);
    BOOST_TEST(ask(loop, f, 5) == 10);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(replicas_that_are_killed_again_and_again_under_load_are_replaced) {
  constexpr int kills = 12;
  {
    par::Snapshot snapshot(of(3));
    par::Reactor loop;
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
    par::Options options = in(snapshot);
    options.retries = 100;
    options.idempotent = true;
    std::vector<par::Remote<int(int)>> remotes;
    for (int i = 0; i < 4; ++i) remotes.push_back(par::run(loop, twice, options));
    int asked = 0;
    int right = 0;
    std::string wrong;
    // Each Remote has a call under way until the last victim is dead.
    std::function<void(std::size_t)> call = [&](std::size_t i) {
      const int x = ++asked;
      remotes[i](x, [&, i, x](par::Result<int> r) {
        if (r)
          right += *r == 2 * x;
        else
          wrong = r.error().what();
        if (losses < kills) call(i);
      });
    };
    for (std::size_t i = 0; i < remotes.size(); ++i) call(i);
    for (int i = 0; i < kills; ++i) {
      ::kill(snapshot.pids()[static_cast<std::size_t>(i) % 3], SIGKILL);
      BOOST_TEST(loop_until(loop, [&] { return losses == i + 1; }));
      BOOST_TEST(whole(loop, snapshot));
    }
    loop.run();
    BOOST_TEST(wrong == "");
    BOOST_TEST(right == asked);
    BOOST_TEST(losses == kills);
    BOOST_TEST(snapshot.pids().size() == 3u);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_new_replica_holds_no_descriptor_of_the_one_that_forked_it) {
  {
    par::Snapshot snapshot(of(2));
    const std::vector<pid_t> before = snapshot.pids();
    par::Reactor loop;
    // Both children of the living one have children of their own, so that it has their control sockets.
    const auto nested = [](par::Pipe<int, int> pipe) {
      pipe.on_message([pipe](int x) {
        static auto inner = par::run(par::this_reactor(), twice);
        inner(x, [pipe](par::Result<int> r) { pipe.send(r.value()); });
      });
    };
    std::vector<par::Process<int, int>> kids;
    std::vector<pid_t> pids(2);
    int answers = 0;
    for (std::size_t i = 0; i < 2; ++i) {
      kids.push_back(par::process(loop, nested, in(snapshot)));
      kids[i].on_start([&pids, i](pid_t pid) { pids[i] = pid; });
      kids[i].on_message([&](int x) { answers += x == 42; });
      kids[i].send(21);
    }
    BOOST_TEST(loop_until(loop, [&] { return answers == 2; }));
    const std::size_t in_this_process = testing::count_descriptors();
    const std::size_t in_the_first = descriptors_of(before[1]).size();
    ::kill(before[1], SIGKILL);
    BOOST_TEST(replaced(loop, snapshot, 1, before[1]));
    const pid_t now = snapshot.pids()[1];
    BOOST_TEST(testing::eventually([&] { return descriptors_of(now).size() < in_the_first; }));
    const Strings its = sockets_of(now);
    BOOST_TEST(its.size() == 3u);  // its control socket, and both ends of its rendezvous socket
    // The living one closes its copy of the control socket after its report of the fork.
    for (const pid_t other : {before[0], pids[0]})
      BOOST_TEST(testing::eventually([&] { return !contains_any(its, sockets_of(other)); }));
    // The child of the lost one has ended, and that of the living one sees the end of its pipe.
    bool ended = false;
    kids[0].on_exit([&](const par::ExitStatus& s) { ended = s.cause == par::Cause::normal; });
    kids[0].close();
    BOOST_TEST(loop_until(loop, [&] { return ended; }));
    kids.clear();
    BOOST_TEST(loop_until(loop, [&] { return testing::count_descriptors() <= in_this_process; }));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(replacements_leave_no_descriptor_behind) {
  {
    par::Snapshot snapshot(of(2));
    par::Reactor loop;
    auto f = par::run(loop, twice, in(snapshot));
    const std::size_t there = descriptors_of(snapshot.pids()[1]).size();
    std::size_t here = 0;
    for (int i = 0; i < 6; ++i) {
      const std::size_t place = 1 - static_cast<std::size_t>(i) % 2;
      const pid_t dead = snapshot.pids()[place];
      ::kill(dead, SIGKILL);
      BOOST_TEST(replaced(loop, snapshot, place, dead));
      const pid_t now = snapshot.pids()[place];
      BOOST_TEST(testing::eventually([&] { return descriptors_of(now).size() == there; }));
      auto g = par::run(loop, twice, in(snapshot));
      BOOST_TEST(ask(loop, g, 4) == 8);
      if (i == 0) here = testing::count_descriptors();
      if (i > 0) BOOST_TEST(testing::count_descriptors() <= here);
    }
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_new_replica_ends_with_the_program) {
  int ends[2];
  BOOST_REQUIRE(::pipe(ends) == 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    par::Snapshot snapshot(of(2));
    const pid_t dead = snapshot.pids()[1];
    par::Reactor loop;
    auto f = par::run(loop, twice, in(snapshot));
    ::kill(dead, SIGKILL);
    replaced(loop, snapshot, 1, dead);
    if (::write(ends[1], snapshot.pids().data(), 2 * sizeof(pid_t)) < 0) ::_exit(1);
    for (;;) ::pause();
  }
  std::vector<pid_t> pids(2);
  BOOST_TEST(::read(ends[0], pids.data(), 2 * sizeof(pid_t)) ==
             static_cast<ssize_t>(2 * sizeof(pid_t)));
  ::close(ends[0]);
  ::close(ends[1]);
  ::kill(parent, SIGKILL);
  for (const pid_t pid : pids) BOOST_TEST(gone(pid));
}

BOOST_AUTO_TEST_CASE(a_new_replica_keeps_spares) {
  {
    par::SnapshotOptions options = of(2);
    options.spares = 2;
    par::Snapshot snapshot(options);
    const pid_t dead = snapshot.pids()[1];
    par::Reactor loop;
    auto f = par::run(loop, twice, in(snapshot));
    BOOST_TEST(ask(loop, f, 4) == 8);
    ::kill(dead, SIGKILL);
    BOOST_TEST(replaced(loop, snapshot, 1, dead));
    BOOST_TEST(
        loop_until(loop, [&] { return testing::children_of(snapshot.pids()[1]).size() == 2u; }));
  }
  testing::close_abandoned();
}

// The first fork of each replica fails; the next one succeeds.
BOOST_AUTO_TEST_CASE(a_replacement_that_cannot_be_forked_is_tried_again) {
  {
    par::fault::Plan plan;
    plan.victim = par::fault::Victim::snapshot;
    plan.fork_failures = 1;
    plan.fork_errno = EAGAIN;
    par::fault::arm(plan);
    par::Snapshot snapshot(of(2));
    par::fault::disarm();
    const std::vector<pid_t> before = snapshot.pids();
    par::Reactor loop;
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
    auto f = par::run(loop, twice, in(snapshot));  // asks the first one
    ::kill(before[0], SIGKILL);
    BOOST_TEST(replaced(loop, snapshot, 0, before[0]));
    BOOST_TEST(snapshot.pids()[1] == before[1]);
    BOOST_TEST(loop_until(loop, [&] { return losses == 1; }));
    BOOST_TEST(snapshot.alive());
  }
  testing::close_abandoned();
}

// A replica that always ends at once must not keep the program busy.
BOOST_AUTO_TEST_CASE(replacements_are_limited_in_time) {
  constexpr int kills = 20;
  {
    par::Snapshot snapshot(of(3));
    par::Reactor loop;
    auto f = par::run(loop, twice, in(snapshot));
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kills; ++i) {
      const pid_t dead = snapshot.pids()[1];
      ::kill(dead, SIGKILL);
      BOOST_TEST(replaced(loop, snapshot, 1, dead));
    }
    // 16 at once, and then one in 250 ms.
    BOOST_TEST((std::chrono::steady_clock::now() - begin >= 1000ms));
    BOOST_TEST(ask(loop, f, 4) == 8);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_replacement_outlives_the_reactor_that_asked_for_it) {
  {
    par::Snapshot snapshot(of(2));
    const pid_t dead = snapshot.pids()[1];
    int losses = 0;
    std::optional<par::Reactor> loop(std::in_place);
    snapshot.on_lost([&](const par::ExitStatus&) {
      ++losses;
      loop->stop();
    });
    auto f = par::run(*loop, twice, in(snapshot));
    ::kill(dead, SIGKILL);
    // The successor is asked for in the callback's turn of the loop, in which the loop ends.
    BOOST_TEST(testing::wait_until([&] { return losses == 1; }, [&] { loop->run_for(1ms); }));
    loop.reset();
    BOOST_TEST(snapshot.alive());
    par::Reactor next;
    auto g = par::run(next, twice, in(snapshot));
    BOOST_TEST(replaced(next, snapshot, 1, dead));
    BOOST_TEST(ask(next, g, 4) == 8);
    BOOST_TEST(losses == 1);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_replacement_ends_with_the_handle) {
  {
    std::optional<par::Snapshot> snapshot(of(2));
    const pid_t dead = snapshot->pids()[1];
    par::Reactor loop;
    int losses = 0;
    {
      auto f = par::run(loop, twice, in(*snapshot));
      snapshot->on_lost([&](const par::ExitStatus&) { ++losses; });
      ::kill(dead, SIGKILL);
      BOOST_TEST(loop_until(loop, [&] { return losses == 1; }));
    }
    snapshot.reset();  // the successor may be asked for, forked, or serve
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_child_of_a_lost_replica_is_reported_with_how_the_replica_ended) {
  {
    par::Snapshot snapshot(of(2));
    const pid_t dead = snapshot.pids()[0];
    par::Reactor loop;
    auto f = par::run(
        loop,
        [](int x) {
          if (x != 0) ::kill(::getppid(), SIGSEGV);
          while (x != 0) ::pause();
          return x;
        },
        in(snapshot));
    BOOST_TEST(ask(loop, f, 0) == 0);
    BOOST_TEST(loop_until(loop, [&] { return f.pid() != 0; }));  // an answer may arrive before it
    const pid_t child = f.pid();
    std::optional<par::Error> error;
    f(1, [&](par::Result<int> r) { error = r.error(); });
    loop.run();
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::snapshot_lost));
    BOOST_REQUIRE(error->exit().has_value());
    BOOST_TEST(error->exit()->pid == child);
    const std::string begin = "snapshot lost: child " + std::to_string(child) +
                              " was lost with wine list, process " + std::to_string(dead) +
                              ", which was killed by SIGSEGV";
    BOOST_TEST(has(error->what(), begin), error->what());
    BOOST_TEST(has(error->what(), ", not by this library"), error->what());
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(orphans_of_a_replaced_replica_stay_counted) {
  {
    par::Snapshot snapshot(of(2));
    const pid_t dead = snapshot.pids()[0];
    par::Reactor loop;
    auto f = par::run(
        loop,
        [] {
          const pid_t pid = ::fork();
          if (pid == 0) {
            ::setsid();
            for (;;) ::pause();
          }
          while (::getpgid(pid) != pid) ::usleep(100);  // until it has left the group
          return pid;
        },
        in(snapshot));
    const pid_t orphan = ask(loop, f);
    f = {};
    BOOST_TEST(loop_until(loop, [&] { return snapshot.orphans_killed() == 1u; }));
    BOOST_TEST(gone(orphan));
    auto g = par::run(loop, twice, in(snapshot));
    ::kill(dead, SIGKILL);
    BOOST_TEST(replaced(loop, snapshot, 0, dead));
    BOOST_TEST(snapshot.orphans_killed() == 1u);
  }
  testing::close_abandoned();
}
