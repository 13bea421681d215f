// spares.cpp - children forked ahead: how they are taken, their state then, and that they cause no reports.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <stdexcept>

namespace par = evparallel;
using testing::ask;
using testing::error_of;
using testing::gone;
using testing::has;
using testing::in;
using testing::loop_until;
using namespace std::chrono_literals;

namespace {

using Pids = std::vector<pid_t>;

par::SnapshotOptions with(unsigned spares) {
  par::SnapshotOptions options;
  options.spares = spares;
  return options;
}

pid_t own_pid() {
  return ::getpid();
}

// "(NAME) STATE ..." of a process; empty if there is none.
std::string stat_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t from = line.find('(');
  return from == line.npos ? std::string() : line.substr(from);
}

// It sleeps, as it does not before it has answered.
bool is_ready_spare(pid_t pid) {
  return stat_of(pid).rfind("(spare) S", 0) == 0;
}

// The spares that are visible at the moment: one may be awake just then, and the kernel's list of children may miss
// some while another one ends.
Pids visible_spares(const par::Snapshot& snapshot) {
  Pids all;
  for (const pid_t replica : snapshot.pids())
    for (const pid_t pid : testing::children_of(replica))
      if (is_ready_spare(pid)) all.push_back(pid);
  return all;
}

bool contains(const Pids& all, pid_t pid) {
  return std::find(all.begin(), all.end(), pid) != all.end();
}

// Waits by `wait` until `count` spares of the snapshot are visible at once.  Returns these: another look might see
// fewer.
template <class Wait>
Pids await_spares(const par::Snapshot& snapshot, std::size_t count, Wait wait) {
  Pids spares;
  const auto all_wait = [&] {
    spares = visible_spares(snapshot);
    return spares.size() == count;
  };
  if (!wait(all_wait)) throw std::runtime_error("the spares never came");
  return spares;
}

// The spares of a snapshot once `count` of them wait.
Pids spares_of(const par::Snapshot& snapshot, std::size_t count) {
  return await_spares(snapshot, count,
                      [](auto condition) { return testing::eventually(condition); });
}

// The same if the loop has to run, so that taken spares are replaced.
Pids refilled(par::Reactor& loop, const par::Snapshot& snapshot, std::size_t count) {
  return await_spares(snapshot, count, [&](auto condition) { return loop_until(loop, condition); });
}

template <class T>
T run_once(par::Reactor& loop, T (*task)(), const par::Options& options) {
  auto f = par::run(loop, task, options);
  return ask(loop, f);
}

}  // namespace

// ---- taking ----

BOOST_AUTO_TEST_CASE(there_are_no_spares_without_the_option) {
  {
    par::Snapshot snapshot;
    par::Reactor loop;
    const pid_t pid = run_once(loop, own_pid, in(snapshot));
    BOOST_TEST(pid > 0);
    BOOST_TEST(loop_until(loop, [&] { return testing::children_of(snapshot.pid()).empty(); }));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(too_many_spares_are_refused_by_name) {
  std::string text;
  try {
    par::Snapshot snapshot(with(static_cast<unsigned>(-1)));
  } catch (const std::logic_error& error) {
    text = error.what();
  }
  BOOST_TEST(has(text, "SnapshotOptions::spares"));
  BOOST_TEST(has(text, "4294967295"));
  BOOST_TEST(testing::children_of(::getpid()).empty());
}

BOOST_AUTO_TEST_CASE(spares_exist_before_any_loop) {
  {
    par::Snapshot snapshot(with(2));
    const Pids spares = spares_of(snapshot, 2);
    par::Reactor loop;
    BOOST_TEST(contains(spares, run_once(loop, own_pid, in(snapshot))));
    BOOST_TEST(contains(spares, run_once(loop, own_pid, in(snapshot))));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(each_taken_spare_is_replaced) {
  {
    par::Snapshot snapshot(with(3));
    par::Reactor loop;
    std::set<pid_t> taken;
    for (int i = 0; i < 10; ++i) {
      const Pids spares = refilled(loop, snapshot, 3);
      auto f = par::run(loop, own_pid, in(snapshot));
      const pid_t pid = ask(loop, f);
      BOOST_TEST(f.pid() == pid);
      BOOST_TEST(contains(spares, pid));
      BOOST_TEST(taken.insert(pid).second);
    }
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_process_takes_a_spare) {
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    const Pids spares = spares_of(snapshot, 1);
    std::vector<std::string> events;
    auto p = par::process(
        loop,
        [](par::Pipe<int, int> pipe) {
          pipe.on_message([pipe](int x) mutable { pipe.send(x + 1); });
        },
        in(snapshot));
    BOOST_TEST(p.pid() == 0);  // the loop reports its start
    p.on_start([&](pid_t pid) {
      events.push_back("start");
      BOOST_TEST(pid == spares[0]);
    });
    p.on_message([&](int x) {
      events.push_back(std::to_string(x));
      p.close();
    });
    p.on_exit([&](const par::ExitStatus& status) {
      events.push_back("exit");
      BOOST_TEST(status.pid == spares[0]);
      BOOST_TEST(status.code() == 0);
    });
    p.send(7);
    loop.run();
    BOOST_REQUIRE(events.size() == 3U);
    BOOST_TEST(events[2] == "exit");
    std::sort(events.begin(), events.begin() + 2);  // the start may be reported after the message
    BOOST_TEST(events[0] == "8");
    BOOST_TEST(events[1] == "start");
  }
  testing::close_abandoned();
}

// It is reported before the end, though both events were there when the loop handled them.
BOOST_AUTO_TEST_CASE(a_start_is_reported_before_the_end) {
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    const pid_t spare = refilled(loop, snapshot, 1)[0];
    auto p = par::process(
        loop, [](par::Pipe<int, int>) { ::_exit(5); }, in(snapshot));
    std::string events;
    p.on_start([&](pid_t pid) { events += pid == spare ? "start " : "wrong "; });
    p.on_error([](const par::Error&) {});
    p.on_exit([&](const par::ExitStatus& status) { events += std::to_string(status.code()); });
    BOOST_TEST(gone(spare));
    loop.run();
    BOOST_TEST(events == "start 5");
  }
  testing::close_abandoned();
}

// The loop was stopped in between: it handles the end first, and deferred callbacks later.
BOOST_AUTO_TEST_CASE(a_start_is_reported_before_the_end_in_a_stopped_loop) {
  {
    par::Snapshot snapshot(with(2));
    par::Reactor loop;
    BOOST_TEST(run_once(loop, own_pid, in(snapshot)) > 0);
    refilled(loop, snapshot, 2);
    par::Options options = in(snapshot);
    options.max_message = 10;
    auto f = par::run(
        loop, [](const std::string& s) { return s.size(); }, options);
    f(std::string(100, 'x'), [&](par::Result<std::size_t> r) {
      BOOST_TEST(!r);
      loop.stop();
    });
    auto p = par::process(
        loop, [](par::Pipe<int, int>) { ::_exit(5); }, in(snapshot));
    std::string events;
    pid_t pid = 0;
    p.on_start([&](pid_t started) {
      pid = started;
      events += "start ";
    });
    p.on_error([](const par::Error&) {});
    p.on_exit([&](const par::ExitStatus& status) { events += std::to_string(status.code()); });
    // One child is still at work, and the loop has not turned, so that no replacement was forked.
    BOOST_TEST(
        testing::eventually([&] { return testing::children_of(snapshot.pid()).size() == 1; }));
    loop.run();
    loop.run();
    BOOST_TEST(events == "start 5");
    BOOST_TEST(pid != 0);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(options_that_are_fixed_at_the_fork_need_a_fork) {
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    const Pids spares = refilled(loop, snapshot, 1);
    const auto is_other = [&](const par::Options& options) {
      const pid_t pid = run_once(loop, own_pid, options);
      return pid != 0 && pid != spares[0];
    };
    par::Options options = in(snapshot);
    options.process_group = par::ProcessGroup::parent;
    BOOST_TEST(is_other(options));
    options = in(snapshot);
    options.out = par::Stdio::capture();
    BOOST_TEST(is_other(options));
    options = in(snapshot);
    options.err = par::Stdio::null();
    BOOST_TEST(is_other(options));
    options = in(snapshot);
    options.in = par::Stdio::inherit();
    BOOST_TEST(is_other(options));
    BOOST_TEST(spares_of(snapshot, 1) == spares, boost::test_tools::per_element());
    BOOST_TEST(run_once(loop, own_pid, in(snapshot)) == spares[0]);
  }
  testing::close_abandoned();
}

// More calls at once than spares: the other children are forked as usual.
BOOST_AUTO_TEST_CASE(children_are_forked_if_no_spare_is_left) {
  {
    par::Snapshot snapshot(with(4));
    par::Reactor loop;
    const Pids spares = refilled(loop, snapshot, 4);
    const std::size_t before = testing::count_descriptors();
    {
      std::vector<par::Remote<pid_t()>> remotes;
      std::map<pid_t, int> answers;
      for (int i = 0; i < 60; ++i) {
        remotes.push_back(par::run(loop, own_pid, in(snapshot)));
        remotes.back()([&](par::Result<pid_t> r) { ++answers[r.value()]; });
      }
      loop.run();
      BOOST_TEST(answers.size() == 60u);
      for (const pid_t pid : spares) BOOST_TEST(answers[pid] == 1);
    }
    refilled(loop, snapshot, 4);
    BOOST_TEST(testing::count_descriptors() == before);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(each_replica_has_its_own_spares) {
  {
    par::SnapshotOptions options = with(2);
    options.replicas = 2;
    par::Snapshot snapshot(options);
    par::Reactor loop;
    const Pids spares = refilled(loop, snapshot, 4);
    std::map<pid_t, int> parents;
    for (int i = 0; i < 4; ++i) {
      auto f = par::run(
          loop,
          [] {
            return std::vector<pid_t>{::getpid(), ::getppid()};
          },
          in(snapshot));
      const Pids reported = ask(loop, f);
      BOOST_TEST(contains(spares, reported[0]));
      ++parents[reported[1]];
    }
    for (const pid_t replica : snapshot.pids()) BOOST_TEST(parents[replica] == 2);
    // With one replica its spares end; the other replica still serves.  All spares are ready before: a child that is
    // being forked holds the socket of a dead one for a moment, and the death would not be visible.
    const Pids before = refilled(loop, snapshot, 4);
    const pid_t lost = snapshot.pids()[0];
    ::kill(lost, SIGKILL);
    BOOST_TEST(gone(lost));
    auto f = par::run(
        loop, [] { return ::getppid(); }, in(snapshot));
    BOOST_TEST(ask(loop, f) != lost);
    // The one that takes its place has spares of its own.
    int kept = 0;
    for (const pid_t spare : refilled(loop, snapshot, 4)) kept += contains(before, spare);
    BOOST_TEST(kept <= 2);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(another_reactor_uses_the_spares_later) {
  {
    par::Snapshot snapshot(with(2));
    Pids spares;
    {
      par::Reactor first;
      BOOST_TEST(run_once(first, own_pid, in(snapshot)) > 0);
      spares = refilled(first, snapshot, 2);
    }
    par::Reactor second;
    BOOST_TEST(contains(spares, run_once(second, own_pid, in(snapshot))));
    refilled(second, snapshot, 2);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_child_has_no_spares) {
  {
    par::Snapshot snapshot(with(2));
    par::Reactor loop;
    const Pids spares = refilled(loop, snapshot, 2);
    auto f = par::run(
        loop,
        [] {
          auto g = par::run(par::this_reactor(), own_pid);
          pid_t nested = 0;
          g([&nested](par::Result<pid_t> r) { nested = r.value(); });
          par::this_reactor().run();
          return std::vector<pid_t>{::getpid(), nested};
        },
        in(snapshot));
    const Pids reported = ask(loop, f);
    BOOST_TEST(contains(spares, reported[0]));
    BOOST_TEST(!contains(spares, reported[1]));
    BOOST_TEST(reported[1] > 0);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(pools_take_spares) {
  {
    par::Snapshot snapshot(with(2));
    par::Reactor loop;
    const Pids spares = refilled(loop, snapshot, 2);
    par::PoolOptions options;
    options.workers = 2;
    options.child = in(snapshot);
    auto pool = par::pool(
        loop, [](int x) { return std::make_pair(x * x, ::getpid()); }, options);
    int right = 0;
    std::set<pid_t> seen;
    for (int i = 0; i < 100; ++i)
      pool.submit(i, [&, i](par::Result<std::pair<int, pid_t>> r) {
        right += r.value().first == i * i;
        seen.insert(r.value().second);
      });
    loop.run();
    BOOST_TEST(right == 100);
    for (const pid_t pid : seen) BOOST_TEST(contains(spares, pid));
    BOOST_TEST(pool.stats().started == 2u);
    BOOST_TEST(pool.stats().respawned == 0u);
    pool.close();
    loop.run();
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(descriptors_reach_spares) {
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    const Pids spares = refilled(loop, snapshot, 1);
    int ends[2];
    BOOST_REQUIRE(::pipe(ends) == 0);
    auto f = par::run(
        loop,
        [](par::Fd fd) {
          const pid_t pid = ::getpid();
          return ::write(fd.get(), &pid, sizeof pid) == static_cast<ssize_t>(sizeof pid);
        },
        in(snapshot));
    bool written = false;
    f(par::Fd(ends[1]), [&](par::Result<bool> r) { written = r.value(); });
    loop.run();
    BOOST_TEST(written);
    pid_t pid = 0;
    BOOST_TEST(::read(ends[0], &pid, sizeof pid) == static_cast<ssize_t>(sizeof pid));
    BOOST_TEST(pid == spares[0]);
    ::close(ends[0]);
  }
  testing::close_abandoned();
}

// ---- their state ----

namespace {

// Values of a child that might depend on its fork, or its number.
std::vector<std::uint64_t> random_of_child() {
  return {par::child_seed(), static_cast<std::uint64_t>(::random()),
          static_cast<std::uint64_t>(std::rand()), static_cast<std::uint64_t>(::lrand48())};
}

std::vector<std::vector<std::uint64_t>> randoms(unsigned spares) {
  par::SnapshotOptions options = with(spares);
  options.seed = 4711;
  par::Snapshot snapshot(options);
  par::Reactor loop;
  std::vector<std::vector<std::uint64_t>> all;
  for (int i = 0; i < 5; ++i) {
    refilled(loop, snapshot, spares);
    all.push_back(run_once(loop, random_of_child, in(snapshot)));
  }
  return all;
}

}  // namespace

BOOST_AUTO_TEST_CASE(random_numbers_in_a_spare_are_those_of_its_spawn) {
  const auto with_them = randoms(2);
  BOOST_REQUIRE(with_them.size() == 5u);
  BOOST_TEST((with_them == randoms(0)));
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_spare_enters_the_environment_of_its_task) {
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    Pids spares = refilled(loop, snapshot, 1);
    par::Options options = in(snapshot);
    options.name = "dishwasher";
    options.cwd = "/usr";
    options.env["SPARE_OF"] = "none";
    options.nice = 3;
    options.limits.cpu = 77s;
    options.limits.memory = std::size_t{64} << 20;
    auto f = par::run(
        loop,
        [] {
          rlimit cpu{};
          rlimit memory{};
          ::getrlimit(RLIMIT_CPU, &cpu);
          ::getrlimit(RLIMIT_AS, &memory);
          char where[64] = {};
          if (!::getcwd(where, sizeof where)) where[0] = 0;
          std::ifstream line("/proc/self/cmdline");
          std::string title;
          std::getline(line, title, '\0');
          const char* variable = std::getenv("SPARE_OF");
          return std::vector<std::string>{std::to_string(::getpid()),
                                          variable ? variable : "",
                                          where,
                                          std::to_string(::getpriority(PRIO_PROCESS, 0)),
                                          std::to_string(cpu.rlim_cur),
                                          memory.rlim_cur == RLIM_INFINITY ? "none" : "limited",
                                          title,
                                          std::to_string(::getpgrp())};
        },
        options);
    const std::vector<std::string> reported = ask(loop, f);
    BOOST_TEST(reported[0] == std::to_string(spares[0]));
    BOOST_TEST(reported[1] == "none");
    BOOST_TEST(reported[2] == "/usr");
    BOOST_TEST(reported[3] == std::to_string(::getpriority(PRIO_PROCESS, 0) + 3));
    BOOST_TEST(reported[4] == "77");
    BOOST_TEST(reported[5] == "limited");
    BOOST_TEST(has(reported[6], "dishwasher"));
    BOOST_TEST(reported[7] == reported[0]);
    BOOST_TEST(stat_of(spares[0]).rfind("(dishwasher)", 0) == 0);
    // Without a name it is named after the program, as usual.
    spares = refilled(loop, snapshot, 1);
    auto g = par::run(loop, own_pid, in(snapshot));
    BOOST_TEST(ask(loop, g) == spares[0]);
    BOOST_TEST(stat_of(spares[0]).rfind("(spare)", 0) == std::string::npos);
  }
  testing::close_abandoned();
}

namespace {

// Whether the page at that address is in the page table of a process; nullopt: unknown.
std::optional<bool> is_mapped(pid_t pid, const void* address) {
  const int pages = ::open(("/proc/" + std::to_string(pid) + "/pagemap").c_str(), O_RDONLY);
  const auto page = reinterpret_cast<std::uintptr_t>(address) /
                    static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  std::uint64_t entry = 0;
  const ssize_t got = ::pread(pages, &entry, sizeof entry, static_cast<off_t>(page * sizeof entry));
  ::close(pages);
  if (got != sizeof entry) return std::nullopt;
  return (entry >> 63) != 0;
}

}  // namespace

// A spare runs no code of the program before its task, so no page of that code is mapped by chance.
BOOST_AUTO_TEST_CASE(the_code_of_the_last_task_is_mapped_in_the_next_spare) {
  const void* const code = reinterpret_cast<const void*>(&own_pid);
  bool reported = false;
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    const pid_t first = refilled(loop, snapshot, 1)[0];
    const std::optional<bool> before = is_mapped(first, code);
    reported = before && !*before;  // otherwise this kernel copies page tables of code
    BOOST_TEST(run_once(loop, own_pid, in(snapshot)) == first);
    const pid_t second = refilled(loop, snapshot, 1)[0];
    if (reported) BOOST_TEST(is_mapped(second, code).value());
  }
  testing::close_abandoned();
  if (!reported) testing::skip("whether code is mapped is not told here, or a fork maps it");
}

BOOST_AUTO_TEST_CASE(hooks_in_a_spare_run_with_the_task_and_not_before) {
  const int status = testing::elsewhere([] {
    static int said[2];
    if (::pipe(said) != 0) return 1;
    const auto say = [](char what) {
      if (::write(said[1], &what, 1) != 1) ::_exit(98);
    };
    par::at_child_start([say] { say(std::getenv("IN_TASK") ? 'S' : 's'); });
    par::at_child_exit([say] { say('e'); });
    par::init(with(2));
    par::Reactor loop;
    const Pids spares = refilled(loop, par::default_snapshot(), 2);
    par::Options options;
    options.env["IN_TASK"] = "1";
    auto f = par::run(loop, own_pid, options);
    const pid_t pid = ask(loop, f);
    f = {};
    if (!contains(spares, pid) || !gone(pid)) return 3;
    // Unused spares end without running the hooks.
    par::default_snapshot().stop();
    if (!gone(spares[0]) || !gone(spares[1]) || !gone(par::default_snapshot().pid())) return 4;
    ::close(said[1]);
    char received[16] = {};
    const ssize_t size = ::read(said[0], received, sizeof received);
    return size == 2 && std::string(received) == "Se" ? 0 : 5;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(the_end_of_a_spare_is_reported_as_that_of_any_child) {
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    par::Options options = in(snapshot);
    options.backtrace = true;
    const auto end_of = [&](int how) {
      const Pids spares = refilled(loop, snapshot, 1);
      auto f = par::run(
          loop,
          [](int x) {
            if (x == 0) ::raise(SIGSEGV);
            if (x == 1) ::exit(3);
            if (x == 2)
              for (;;) ::pause();
            return x;
          },
          options);
      std::optional<par::Error> error;
      par::Call call = f(how, [&](par::Result<int> r) { error = r.error(); });
      if (how == 2) call.set_deadline(20ms);
      loop.run();
      BOOST_REQUIRE(error.has_value());
      if (how == 2) {
        f = {};
        BOOST_TEST(loop_until(loop, [&] { return !testing::process_exists(spares[0]); }));
      } else {
        BOOST_REQUIRE(error->exit().has_value());
        BOOST_TEST(error->exit()->pid == spares[0]);
      }
      return *error;
    };
    const par::Error crash = end_of(0);
    BOOST_TEST((crash.code() == par::Errc::child_killed));
    BOOST_TEST((crash.delivery() == par::Delivery::started));
    BOOST_TEST(crash.exit()->signal() == SIGSEGV);
    BOOST_REQUIRE(crash.exit()->crash);
    BOOST_TEST(crash.exit()->crash->signal == SIGSEGV);
    const par::Error left = end_of(1);
    BOOST_TEST((left.code() == par::Errc::child_exited));
    BOOST_TEST(left.exit()->code() == 3);
    options.grace = 20ms;
    BOOST_TEST((end_of(2).code() == par::Errc::deadline));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(calls_in_spares_are_cancelled_and_limited_as_in_other_children) {
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    const Pids spares = refilled(loop, snapshot, 1);
    par::Options options = in(snapshot);
    options.max_message = 1000;
    options.grace = 1h;
    auto f = par::run(
        loop,
        [](const std::string& text) {
          while (text == "spin" && !par::this_call::cancelled()) {}
          return text == "id" ? std::to_string(par::this_call::id()) : std::to_string(::getpid());
        },
        options);
    std::vector<std::string> received;
    const auto note = [&](par::Result<std::string> r) {
      received.push_back(r ? *r : par::to_string(r.error().code()));
    };
    f("id", note);
    loop.run();
    par::Call call = f("spin", note);
    par::Timer soon = loop.after(5ms, [&] { call.cancel(); });
    loop.run();
    f(std::string(2000, 'x'), note);
    f("", note);
    loop.run();
    const std::vector<std::string> expected{"1", "cancelled", "too_large",
                                            std::to_string(spares[0])};
    BOOST_TEST(received == expected, boost::test_tools::per_element());
  }
  testing::close_abandoned();
}

// The trial call does not count as a call that it has begun.
BOOST_AUTO_TEST_CASE(the_delivery_of_a_call_in_a_spare_is_reported_correctly) {
  const int status = testing::elsewhere([] {
    par::at_child_start([] { ::raise(SIGKILL); });
    par::init(with(1));
    par::Reactor loop;
    refilled(loop, par::default_snapshot(), 1);
    auto f = par::run(loop, own_pid);
    int received = 0;
    f([&](par::Result<pid_t> r) {
      // A caller that has seen the end has another child, with another pid.
      received = r ? 2 : r.error().delivery() == par::Delivery::started ? 3 : 5;
    });
    loop.run();
    return received;
  });
  BOOST_TEST(status == 5);
}

BOOST_AUTO_TEST_CASE(faults_in_a_spare_are_counted_from_its_task_on) {
  const int status = testing::elsewhere([] {
    par::fault::Plan plan;
    plan.die_at_message = 2;
    par::fault::arm(plan);
    par::init(with(1));
    par::fault::disarm();
    par::Reactor loop;
    const Pids spares = refilled(loop, par::default_snapshot(), 1);
    auto f = par::run(loop, own_pid);
    std::string received;
    for (int i = 0; i < 2; ++i) {
      f([&](par::Result<pid_t> r) { received += r ? *r == spares[0] ? "a" : "b" : "c"; });
      loop.run();
    }
    return received == "ac" ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

// ---- no reports of spares ----

BOOST_AUTO_TEST_CASE(spares_neither_hold_a_loop_nor_wake_it) {
  {
    par::Snapshot snapshot(with(3));
    par::Reactor loop;
    loop.run();  // returns
    BOOST_TEST(run_once(loop, own_pid, in(snapshot)) > 0);
    refilled(loop, snapshot, 3);
    loop.run();
    const auto waits_in_100_ms = [&] {
      const par::Timer end = loop.after(100ms, [] {});
      rusage before{};
      rusage after{};
      ::getrusage(RUSAGE_SELF, &before);
      loop.run();
      ::getrusage(RUSAGE_SELF, &after);
      return after.ru_nvcsw - before.ru_nvcsw;
    };
    // Only the waits for the timer remain; the rest of the refill is over after some time.
    BOOST_TEST(testing::eventually([&] { return waits_in_100_ms() <= 2; }));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_dead_spare_is_replaced_silently) {
  {
    par::Snapshot snapshot(with(2));
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
    par::Reactor loop;
    BOOST_TEST(run_once(loop, own_pid, in(snapshot)) > 0);
    const Pids spares = refilled(loop, snapshot, 2);
    ::kill(spares[0], SIGKILL);
    BOOST_TEST(loop_until(loop, [&] {
      const Pids now = visible_spares(snapshot);
      return now.size() == 2 && !contains(now, spares[0]);
    }));
    BOOST_TEST(losses == 0);
    BOOST_TEST(snapshot.orphans_killed() == 0u);
    BOOST_TEST(snapshot.alive());
    BOOST_TEST(run_once(loop, own_pid, in(snapshot)) > 0);
  }
  testing::close_abandoned();
}

// Each spare is killed: the program is not kept busy with it, and tries again at its next spawn.
BOOST_AUTO_TEST_CASE(a_spare_that_is_always_killed_is_not_replaced_for_ever) {
  {
    constexpr std::size_t count = 2;
    par::Snapshot snapshot(with(count));
    par::Reactor loop;
    BOOST_TEST(run_once(loop, own_pid, in(snapshot)) > 0);
    refilled(loop, snapshot, count);
    // Waits for spares for at most 100 turns: requested ones take far fewer.
    const auto next = [&] {
      Pids come = visible_spares(snapshot);
      for (int turn = 0; turn < 100 && come.empty(); ++turn) {
        const par::Timer end = loop.after(1ms, [] {});
        loop.run();
        come = visible_spares(snapshot);
      }
      return come;
    };
    std::size_t killed = 0;
    for (Pids come = next(); killed < 100 && !come.empty(); come = next()) {
      ::kill(come[0], SIGKILL);
      BOOST_REQUIRE(gone(come[0]));
      ++killed;
    }
    BOOST_TEST(killed >= count);
    BOOST_TEST(killed <= 3 * count + 1);
    BOOST_TEST(run_once(loop, own_pid, in(snapshot)) > 0);
    refilled(loop, snapshot, count);
  }
  testing::close_abandoned();
}

// The loop has had no turn to notice it.
BOOST_AUTO_TEST_CASE(a_dead_spare_is_not_taken) {
  {
    par::Snapshot snapshot(with(2));
    par::Reactor loop;
    const Pids spares = refilled(loop, snapshot, 2);
    ::kill(spares[0], SIGKILL);
    BOOST_TEST(gone(spares[0]));
    std::vector<par::ExitStatus> ends;
    std::vector<par::Process<pid_t, int>> processes;
    std::vector<pid_t> reported;
    for (int i = 0; i < 3; ++i) {
      processes.push_back(par::process(
          loop, [](par::Pipe<int, pid_t> pipe) { pipe.send(::getpid()); }, in(snapshot)));
      processes.back().on_message([&](pid_t pid) { reported.push_back(pid); });
      processes.back().on_exit([&](const par::ExitStatus& status) { ends.push_back(status); });
      processes.back().close();
    }
    loop.run();
    BOOST_TEST(reported.size() == 3u);
    BOOST_TEST(!contains(reported, spares[0]));
    BOOST_TEST(contains(reported, spares[1]));
    for (const par::ExitStatus& status : ends) BOOST_TEST(status.code() == 0);
  }
  testing::close_abandoned();
}

// It was taken while it was dying, or hung: no call is lost with it.
BOOST_AUTO_TEST_CASE(a_spare_that_never_takes_its_task_has_no_effect) {
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    const pid_t spare = refilled(loop, snapshot, 1)[0];
    ::kill(spare, SIGSTOP);
    BOOST_REQUIRE(testing::eventually([&] { return has(stat_of(spare), ") T"); }));
    auto f = par::run(
        loop,
        [](int x) {
          return std::vector<int>{x, ::getpid()};
        },
        in(snapshot));
    std::vector<std::vector<int>> received;
    for (int i = 0; i < 3; ++i)
      f(i, [&](par::Result<std::vector<int>> r) { received.push_back(r.value()); });
    par::Timer soon = loop.every(1ms, [&] {
      if (f.pid() == 0) return;
      BOOST_TEST(f.pid() == spare);
      ::kill(spare, SIGKILL);
      soon.cancel();
    });
    loop.run();
    BOOST_REQUIRE(received.size() == 3u);
    for (int i = 0; i < 3; ++i) {
      BOOST_TEST(received[static_cast<std::size_t>(i)][0] == i);
      BOOST_TEST(received[static_cast<std::size_t>(i)][1] != spare);
    }
  }
  testing::close_abandoned();
}

// Messages to a process are not kept: it gets the end as usual.
BOOST_AUTO_TEST_CASE(a_process_gets_the_end_of_a_spare_before_its_task) {
  {
    par::Snapshot snapshot(with(1));
    par::Reactor loop;
    const pid_t spare = refilled(loop, snapshot, 1)[0];
    ::kill(spare, SIGSTOP);
    auto p = par::process(
        loop, [](par::Pipe<int, int>) {}, in(snapshot));
    std::string events;
    p.on_start([&](pid_t pid) { ::kill(pid, SIGKILL); });
    p.on_error([&](const par::Error& e) { events += par::to_string(e.code()); });
    p.on_exit([&](const par::ExitStatus& status) {
      events += status.pid == spare && status.signalled() ? ", exit" : ", wrong";
    });
    loop.run();
    BOOST_TEST(events == "child_killed, exit");
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(all_waiting_spares_are_found) {
  {
    par::Snapshot snapshot(with(12));
    const Pids spares = spares_of(snapshot, 12);  // the loop has checked none of them yet
    par::Reactor loop;
    std::set<pid_t> seen;
    for (int i = 0; i < 12; ++i) seen.insert(run_once(loop, own_pid, in(snapshot)));
    for (const pid_t pid : spares) BOOST_TEST(seen.count(pid) == 1u);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(failed_forks_are_reported_by_spawns_and_not_by_spares) {
  const int status = testing::elsewhere([] {
    par::fault::Plan plan;
    plan.victim = par::fault::Victim::snapshot;
    plan.fork_failures = 10;
    plan.fork_errno = EAGAIN;
    par::fault::arm(plan);
    par::init(with(2));
    par::fault::disarm();
    par::Reactor loop;
    // A call after the failure of the fork was noticed causes another fork.
    int os_error = EAGAIN;
    for (int i = 0; i < 20 && os_error == EAGAIN; ++i) {
      auto f = par::run(loop, own_pid);
      f([&](par::Result<pid_t> r) { os_error = r ? 0 : r.error().os_error(); });
      loop.run();
    }
    if (os_error != 0) return 1;
    refilled(loop, par::default_snapshot(), 2);
    return 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_snapshot_fails_without_descriptors_for_its_spares) {
  const int status = testing::elsewhere([] {
    const rlimit limit{64, 64};
    ::setrlimit(RLIMIT_NOFILE, &limit);
    const auto error = error_of([] { par::init(with(100)); });
    if (!error || error->code() != par::Errc::spawn_failed || error->os_error() != EMFILE) return 1;
    if (!has(error->what(), "100 spares")) return 2;
    const bool none = testing::eventually([] {
      const Pids left = testing::children_of(::getpid());
      return std::none_of(left.begin(), left.end(), testing::process_exists);
    });
    return none ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

// Later a spawn forks a child, or reports the lack.
BOOST_AUTO_TEST_CASE(spares_are_not_replaced_without_descriptors) {
  const int status = testing::elsewhere([] {
    const rlimit limit{64, 64};
    ::setrlimit(RLIMIT_NOFILE, &limit);
    par::init(with(1));
    par::Reactor loop;
    const pid_t spare = refilled(loop, par::default_snapshot(), 1)[0];
    std::vector<int> taken;
    for (int fd; (fd = ::dup(STDIN_FILENO)) >= 0;) taken.push_back(fd);
    auto f = par::run(loop, own_pid);  // needs none
    if (ask(loop, f) != spare) return 2;
    const auto error = error_of([&] { auto g = par::run(loop, own_pid); });
    if (!error || error->code() != par::Errc::spawn_failed || error->os_error() != EMFILE) return 3;
    for (const int fd : taken) ::close(fd);
    if (run_once(loop, own_pid, {}) <= 0) return 4;
    refilled(loop, par::default_snapshot(), 1);
    return 0;
  });
  BOOST_TEST(status == 0);
}

// ---- their end ----

BOOST_AUTO_TEST_CASE(stop_ends_spares_and_children_live_on) {
  {
    par::Snapshot snapshot(with(3));
    const pid_t pid = snapshot.pid();
    par::Reactor loop;
    refilled(loop, snapshot, 3);
    auto f = par::run(loop, own_pid, in(snapshot));
    const pid_t child = ask(loop, f);
    const Pids spares = refilled(loop, snapshot, 3);
    snapshot.stop();
    for (const pid_t spare : spares) BOOST_TEST(gone(spare));
    BOOST_TEST(testing::process_exists(pid));
    BOOST_TEST(ask(loop, f) == child);
    f = {};
    BOOST_TEST(gone(pid));
  }
  testing::close_abandoned();
}

// Nobody has used them, and they were never reported.
BOOST_AUTO_TEST_CASE(spares_end_with_the_handle) {
  Pids all;
  {
    par::Snapshot snapshot(with(3));
    all = spares_of(snapshot, 3);
    all.push_back(snapshot.pid());
  }
  for (const pid_t pid : all) BOOST_TEST(gone(pid));
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(spares_end_with_their_snapshot) {
  {
    par::Snapshot snapshot(with(3));
    int losses = 0;
    snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
    par::Reactor loop;
    BOOST_TEST(run_once(loop, own_pid, in(snapshot)) > 0);
    const Pids spares = refilled(loop, snapshot, 3);
    ::kill(snapshot.pid(), SIGKILL);
    BOOST_TEST(loop_until(loop, [&] { return losses == 1; }));
    for (const pid_t spare : spares) BOOST_TEST(gone(spare));
    auto f = par::run(loop, own_pid, in(snapshot));
    std::string received;
    f([&](par::Result<pid_t> r) { received = r ? "a value" : par::to_string(r.error().code()); });
    loop.run();
    BOOST_TEST(received == "snapshot_lost");
    BOOST_TEST(losses == 1);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(spares_end_with_the_program) {
  for (const bool stopped : {false, true}) {
    int ends[2];
    BOOST_REQUIRE(::pipe(ends) == 0);
    const pid_t program = ::fork();
    if (program == 0) {
      par::Snapshot snapshot(with(3));
      Pids all;
      const auto all_wait = [&] {
        all = visible_spares(snapshot);
        return all.size() == 3;
      };
      if (!testing::eventually(all_wait)) ::_exit(1);
      if (stopped) ::kill(all[1], SIGSTOP);
      all.push_back(snapshot.pid());
      if (::write(ends[1], all.data(), 4 * sizeof(pid_t)) < 0) ::_exit(1);
      for (;;) ::pause();
    }
    Pids all(4);
    BOOST_TEST(::read(ends[0], all.data(), 4 * sizeof(pid_t)) ==
               static_cast<ssize_t>(4 * sizeof(pid_t)));
    ::close(ends[0]);
    ::close(ends[1]);
    ::kill(program, SIGKILL);
    for (const pid_t pid : all) BOOST_TEST(gone(pid));
  }
}

// A process that the program forks by itself has copies of their sockets.
BOOST_AUTO_TEST_CASE(a_fork_of_the_program_does_not_disturb_spares) {
  {
    auto snapshot = std::make_unique<par::Snapshot>(with(2));
    par::Reactor loop;
    const Pids spares = refilled(loop, *snapshot, 2);
    const int status = testing::elsewhere([&] {
      snapshot.reset();
      return 0;
    });
    BOOST_TEST(status == 0);
    BOOST_TEST(contains(spares, run_once(loop, own_pid, in(*snapshot))));
    BOOST_TEST(contains(spares, run_once(loop, own_pid, in(*snapshot))));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(each_spare_needs_one_descriptor) {
  { par::Snapshot closes_what_earlier_ones_left; }
  const std::size_t before = testing::count_descriptors();
  {
    par::Snapshot first(with(5));
    // Beside them the snapshot has its control socket, and an end of its rendezvous socket.
    BOOST_TEST(testing::count_descriptors() == before + 7);
    // The next snapshot has none of them.
    par::Snapshot second;
    const Pids spares = spares_of(first, 5);
    first.stop();
    for (const pid_t spare : spares) BOOST_TEST(gone(spare));
  }
  testing::close_abandoned();
}
