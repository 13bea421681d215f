// supervise.cpp - supervisors: restarts and pauses, the end of patience, rolling restarts, drains, and the descriptors
// that a server needs.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;
using testing::has;
using testing::loop_until;

namespace {

constexpr unsigned most = 8;

// Memory that this program shares with the children.
struct Board {
  std::atomic<int> starts[most];   // children of a place that have begun their function
  std::atomic<int> crashes[most];  // how many of the next ones exit with status 3
  std::atomic<int> watching;       // children that would notice SIGTERM
  std::atomic<int> drained;        // children that have ended because of SIGTERM, by themselves
  std::atomic<int> inside[most];   // children of a place that hold what belongs to it
  std::atomic<int> collisions;
  std::atomic<bool> hook_fails;
  std::atomic<bool> hook_waits;
  std::atomic<int> waiting;  // children in such a hook
  std::atomic<bool> released;
  std::atomic<pid_t> left_behind;
};
Board* board = nullptr;

void reset() {
  for (unsigned i = 0; i < most; ++i) board->starts[i] = board->crashes[i] = board->inside[i] = 0;
  board->watching = board->drained = board->collisions = 0;
  board->hook_fails = board->hook_waits = board->released = false;
  board->waiting = 0;
  board->left_behind = 0;
}

// ---- functions of children ----

// Ends when it receives SIGTERM.
void wait_for_sigterm() {
  par::Reactor& loop = par::this_reactor();
  par::Watch term;
  term = loop.on_signal(SIGTERM, [&] {
    ++board->drained;
    term.cancel();
  });
  ++board->watching;
  loop.run();
}

void serve(unsigned index) {
  ++board->starts[index];
  if (board->crashes[index]-- > 0) ::_exit(3);
  wait_for_sigterm();
}

// Ends at SIGTERM only when the case releases it.
void hold_on(unsigned index) {
  ++board->starts[index];
  par::Reactor& loop = par::this_reactor();
  par::Watch term;
  par::Timer look;
  term = loop.on_signal(SIGTERM, [&] {
    look = loop.every(1ms, [&] {
      if (!board->released) return;
      look.cancel();
      term.cancel();
    });
  });
  ++board->watching;
  loop.run();
}

// ---- a supervisor whose events are recorded ----

using Strings = std::vector<std::string>;

struct Observed {
  par::Supervisor supervisor{};
  Strings events{};
  std::vector<par::ExitStatus> exits{};
  std::optional<par::Error> failure{};
  int closed = 0;

  explicit Observed(par::Supervisor made) : supervisor(std::move(made)) {
    supervisor.on_start([this](unsigned index, pid_t pid) {
      BOOST_TEST(pid > 0);
      BOOST_TEST(supervisor.pids().at(index) == pid);
      events.push_back("start " + std::to_string(index));
    });
    supervisor.on_exit([this](unsigned index, const par::ExitStatus& status) {
      events.push_back("exit " + std::to_string(index));
      exits.push_back(status);
    });
    supervisor.on_failed([this](const par::Error& error) {
      events.push_back("failed");
      failure = error;
    });
    supervisor.on_closed([this] {
      events.push_back("closed");
      ++closed;
    });
  }
  Observed(const Observed&) = delete;
  Observed& operator=(const Observed&) = delete;

  auto count(const std::string& event) const {
    return std::count(events.begin(), events.end(), event);
  }
  // Waits until so many places run.
  bool wait(par::Reactor& loop, unsigned running, const char* file = __builtin_FILE(),
            int line = __builtin_LINE()) {
    return loop_until(
        loop, [&] { return supervisor.running() == running; }, file, line);
  }
  void close(par::Reactor& loop) {
    supervisor.close();
    loop.run();
    BOOST_TEST(closed == 1);
    BOOST_TEST(events.back() == "closed");
  }
};

bool watching(par::Reactor& loop, int count, const char* file = __builtin_FILE(),
              int line = __builtin_LINE()) {
  return loop_until(
      loop, [count] { return board->watching == count; }, file, line);
}

// Restarts without a noticeable pause.
par::SuperviseOptions soon() {
  par::SuperviseOptions options;
  options.first_pause = 1ms;
  options.longest_pause = 2ms;
  return options;
}

bool all_differ(const std::vector<pid_t>& now, const std::vector<pid_t>& before) {
  for (std::size_t i = 0; i < now.size(); ++i)
    if (now[i] == 0 || now[i] == before.at(i)) return false;
  return true;
}

}  // namespace

void testing_main_init() {
  board = &testing::shared<Board>();
  par::at_child_start([] {
    if (board->hook_fails) throw std::runtime_error("no configuration");
    board->waiting += board->hook_waits;
    while (board->hook_waits) ::poll(nullptr, 0, 1);
  });
  testing::take_default_snapshot();
}

// ---- places ----

BOOST_AUTO_TEST_CASE(each_place_has_a_child_that_gets_its_index) {
  reset();
  par::Reactor loop;
  Observed all(par::supervise(loop, serve, 3));
  BOOST_TEST((all.supervisor.pids() == std::vector<pid_t>{0, 0, 0}));
  BOOST_TEST(watching(loop, 3));
  BOOST_TEST(all.wait(loop, 3));
  const std::vector<pid_t> pids = all.supervisor.pids();
  BOOST_TEST(std::set<pid_t>(pids.begin(), pids.end()).size() == 3U);
  for (unsigned i = 0; i < 3; ++i) {
    BOOST_TEST(board->starts[i] == 1);
    BOOST_TEST(all.count("start " + std::to_string(i)) == 1);
  }
  all.close(loop);
  for (unsigned i = 0; i < 3; ++i) BOOST_TEST(all.count("exit " + std::to_string(i)) == 1);
  BOOST_TEST(all.supervisor.running() == 0U);
  BOOST_TEST(!all.failure.has_value());
}

BOOST_AUTO_TEST_CASE(a_function_may_have_bound_arguments_or_none) {
  reset();
  par::Reactor loop;
  Observed bound(par::supervise(
      loop,
      par::bind(
          [](const std::string& text, const std::vector<int>& numbers, unsigned index) {
            board->starts[index] = static_cast<int>(text.size() + numbers.size());
            wait_for_sigterm();
          },
          std::string(1000, 'x'), std::vector<int>{1, 2, 3}),
      2));
  Observed plain(par::supervise(loop, wait_for_sigterm, 2));
  BOOST_TEST(watching(loop, 4));
  BOOST_TEST(board->starts[0] == 1003);
  BOOST_TEST(board->starts[1] == 1003);
  bound.supervisor.close();
  plain.close(loop);
  BOOST_TEST(board->drained == 4);
}

BOOST_AUTO_TEST_CASE(a_dead_child_is_followed_by_one_with_its_index) {
  reset();
  par::Reactor loop;
  Observed all(par::supervise(loop, serve, 3, soon()));
  BOOST_TEST(watching(loop, 3));
  BOOST_TEST(all.wait(loop, 3));
  const std::vector<pid_t> before = all.supervisor.pids();
  ::kill(before[1], SIGKILL);
  BOOST_TEST(loop_until(loop, [&] { return board->starts[1] == 2; }));
  BOOST_TEST(all.wait(loop, 3));
  const std::vector<pid_t> after = all.supervisor.pids();
  BOOST_TEST(after[0] == before[0]);
  BOOST_TEST(after[1] != before[1]);
  BOOST_TEST(after[2] == before[2]);
  BOOST_REQUIRE(all.exits.size() == 1U);
  BOOST_TEST(all.exits[0].pid == before[1]);
  BOOST_TEST(all.exits[0].signal() == SIGKILL);
  BOOST_TEST(watching(loop, 4));
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(a_supervisor_of_no_place_or_of_too_many_is_refused) {
  par::Reactor loop;
  const auto of = [&](unsigned n) {
    return testing::misuse_of([&] { static_cast<void>(par::supervise(loop, serve, n)); });
  };
  BOOST_TEST(has(of(0), "at least one place"));
  BOOST_TEST(has(of(4097), "at most 4096 places"));
  BOOST_TEST(has(of(UINT_MAX), "at most 4096 places"));
  loop.run();  // nothing holds it
}

BOOST_AUTO_TEST_CASE(a_negative_time_is_refused_by_name) {
  using Options = par::SuperviseOptions;
  par::Reactor loop;
  const auto with = [&](const std::function<void(Options&)>& change) {
    Options options;
    change(options);
    return testing::misuse_of([&] { static_cast<void>(par::supervise(loop, serve, 1, options)); });
  };
  BOOST_TEST(has(with([](Options& o) { o.first_pause = -1ms; }), "first_pause is negative"));
  BOOST_TEST(has(with([](Options& o) { o.longest_pause = -1ms; }), "longest_pause is negative"));
  BOOST_TEST(has(with([](Options& o) { o.stable_after = -1ms; }), "stable_after is negative"));
  BOOST_TEST(has(with([](Options& o) { o.restart_window = -1ms; }), "restart_window is negative"));
  BOOST_TEST(has(with([](Options& o) { o.grace = -1ms; }), "SuperviseOptions::grace is negative"));
  BOOST_TEST(has(with([](Options& o) { o.child.linger = -1ms; }), "Options::linger is negative"));
  par::Supervisor one = par::supervise(loop, serve, 1);
  BOOST_TEST(has(testing::misuse_of([&] { one.shutdown(-1ms); }), "shutdown is negative"));
  one.close();
  loop.run();
}

BOOST_AUTO_TEST_CASE(the_largest_times_and_numbers_mean_no_limit) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.first_pause = 0ms;
  options.longest_pause = options.stable_after = options.restart_window =
      std::chrono::milliseconds::max();
  options.grace = std::chrono::milliseconds::max();
  options.max_restarts = options.restarts_at_once = UINT_MAX;
  board->crashes[0] = 20;
  Observed all(par::supervise(loop, serve, 1, options));
  BOOST_TEST(watching(loop, 1));
  BOOST_TEST(all.exits.size() == 20U);
  all.supervisor.restart();
  BOOST_TEST(watching(loop, 2));
  all.close(loop);

  options.first_pause = std::chrono::milliseconds::max();
  board->crashes[0] = 1;
  Observed paused(par::supervise(loop, serve, 1, options));
  BOOST_TEST(loop_until(loop, [&] { return paused.exits.size() == 1; }));
  paused.close(loop);  // it does not wait for the pause
  BOOST_TEST(paused.exits.size() == 1U);
}

// ---- pauses ----

BOOST_AUTO_TEST_CASE(a_pause_before_a_restart_doubles_up_to_the_longest) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.first_pause = 10ms;
  options.longest_pause = 35ms;
  board->crashes[0] = 4;
  par::Supervisor one = par::supervise(loop, serve, 1, options);
  using Clock = std::chrono::steady_clock;
  std::vector<Clock::duration> pauses;
  Clock::time_point ended_at{};
  one.on_exit([&](unsigned, const par::ExitStatus&) { ended_at = Clock::now(); });
  one.on_start([&](unsigned, pid_t) {
    if (ended_at != Clock::time_point{}) pauses.push_back(Clock::now() - ended_at);
  });
  BOOST_TEST(watching(loop, 1));
  BOOST_TEST(loop_until(loop, [&] { return one.running() == 1; }));
  BOOST_REQUIRE(pauses.size() == 4U);
  BOOST_TEST((pauses[0] >= 10ms));
  BOOST_TEST((pauses[1] >= 20ms));
  BOOST_TEST((pauses[2] >= 35ms));
  BOOST_TEST((pauses[3] >= 35ms));
  one.close();
  loop.run();
}

BOOST_AUTO_TEST_CASE(a_child_that_has_lived_long_enough_is_restarted_at_once) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.first_pause = options.longest_pause = 10h;
  options.stable_after = 5ms;
  Observed all(par::supervise(loop, serve, 1, options));
  for (int i = 1; i <= 3; ++i) {
    BOOST_TEST(watching(loop, i));
    BOOST_TEST(all.wait(loop, 1));
    bool stable = false;
    const par::Timer life = loop.after(6ms, [&] { stable = true; });
    BOOST_TEST(loop_until(loop, [&] { return stable; }));
    ::kill(all.supervisor.pids()[0], SIGKILL);
  }
  BOOST_TEST(watching(loop, 4));
  all.close(loop);
  BOOST_TEST(board->starts[0] == 4);
}

// ---- giving up ----

BOOST_AUTO_TEST_CASE(above_the_rate_of_restarts_it_gives_up_and_ends_all_children) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  options.max_restarts = 3;
  board->crashes[1] = 1000;
  Observed all(par::supervise(loop, serve, 2, options));
  loop.run();
  BOOST_TEST(board->starts[1] == 4);
  BOOST_REQUIRE(all.failure.has_value());
  BOOST_TEST((all.failure->code() == par::Errc::unhealthy));
  BOOST_TEST(has(all.failure->what(), "place 1 needed more than 3 restarts within 60000 ms"));
  BOOST_TEST(has(all.failure->what(), "exited with status 3"));
  BOOST_REQUIRE(all.failure->exit().has_value());
  BOOST_TEST(all.failure->exit()->code() == 3);
  BOOST_TEST(all.count("failed") == 1);
  BOOST_TEST(all.count("exit 0") == 1);
  BOOST_TEST(all.count("exit 1") == 4);
  BOOST_TEST(all.events.back() == "closed");
  BOOST_TEST(all.closed == 1);
  const auto failed = std::find(all.events.begin(), all.events.end(), "failed");
  BOOST_TEST(std::count(failed, all.events.end(), "exit 0") == 1);
  BOOST_TEST(std::count(failed, all.events.end(), "start 1") == 0);
}

BOOST_AUTO_TEST_CASE(giving_up_without_a_callback_ends_run_with_the_error) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  options.max_restarts = 0;
  par::Supervisor all = par::supervise(
      loop, [] { throw std::runtime_error("the port is taken"); }, 1, options);
  bool closed = false;
  all.on_closed([&] { closed = true; });
  const std::optional<par::Error> error = testing::error_of([&] { loop.run(); });
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::unhealthy));
  BOOST_TEST(has(error->what(), "std::runtime_error: the port is taken"));
  BOOST_TEST(error->remote_type() == "std::runtime_error");
  BOOST_REQUIRE(error->exit().has_value());
  BOOST_TEST(error->exit()->code() == 70);
  loop.run();
  BOOST_TEST(closed);
}

BOOST_AUTO_TEST_CASE(without_a_window_there_is_no_rate_to_exceed) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  options.max_restarts = 1;
  options.restart_window = 0ms;
  board->crashes[0] = 12;
  Observed all(par::supervise(loop, serve, 1, options));
  BOOST_TEST(watching(loop, 1));
  BOOST_TEST(all.exits.size() == 12U);
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(restarts_outside_of_the_window_do_not_count) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.first_pause = options.longest_pause = 20ms;
  options.restart_window = 5ms;
  options.max_restarts = 1;
  board->crashes[0] = 6;
  Observed all(par::supervise(loop, serve, 1, options));
  BOOST_TEST(watching(loop, 1));
  BOOST_TEST(!all.failure.has_value());
  BOOST_TEST(all.exits.size() == 6U);
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(nothing_is_done_after_the_end) {
  reset();
  par::Reactor loop;
  Observed all(par::supervise(loop, serve, 2));
  BOOST_TEST(watching(loop, 2));
  all.close(loop);
  const Strings events = all.events;
  all.supervisor.restart();
  all.supervisor.resize(4);
  all.supervisor.close();
  all.supervisor.shutdown(0ms);
  testing::turn(loop, 5);
  BOOST_TEST((all.events == events));
  BOOST_TEST(all.supervisor.running() == 0U);
}

// ---- which ends are followed by a restart ----

BOOST_AUTO_TEST_CASE(a_return_is_followed_by_a_restart_unless_only_failures_are) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  const auto once = [](unsigned index) {
    if (++board->starts[index] == 1) return;
    wait_for_sigterm();
  };
  Observed always(par::supervise(loop, once, 1, options));
  BOOST_TEST(watching(loop, 1));
  BOOST_TEST(board->starts[0] == 2);
  BOOST_TEST((always.exits.at(0).cause == par::Cause::normal));
  always.close(loop);

  reset();
  options.restart = par::Restart::on_failure;
  Observed failures(par::supervise(loop, once, 2, options));
  loop.run();  // both are done
  BOOST_TEST(board->starts[0] == 1);
  BOOST_TEST(board->starts[1] == 1);
  BOOST_TEST(failures.closed == 1);
  BOOST_TEST(!failures.failure.has_value());
}

BOOST_AUTO_TEST_CASE(a_failure_is_followed_by_a_restart_unless_none_is) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  options.restart = par::Restart::on_failure;
  board->crashes[0] = 2;
  Observed failures(par::supervise(loop, serve, 1, options));
  BOOST_TEST(watching(loop, 1));
  BOOST_TEST(board->starts[0] == 3);
  failures.close(loop);

  reset();
  options.restart = par::Restart::never;
  board->crashes[0] = 1;
  Observed never(par::supervise(loop, serve, 2, options));
  BOOST_TEST(watching(loop, 1));
  BOOST_TEST(loop_until(loop, [&] { return never.exits.size() == 1; }));
  BOOST_TEST(never.wait(loop, 1));
  never.supervisor.restart();  // a place that is done stays so
  BOOST_TEST(loop_until(loop, [&] { return never.exits.size() == 2; }));
  BOOST_TEST(watching(loop, 2));
  BOOST_TEST(board->starts[0] == 1);
  BOOST_TEST(board->starts[1] == 2);
  never.close(loop);
}

// ---- starts that fail ----

BOOST_AUTO_TEST_CASE(a_failed_fork_is_tried_again_under_each_policy) {
  for (const par::Restart restart :
       {par::Restart::always, par::Restart::on_failure, par::Restart::never}) {
    reset();
    par::fault::Plan plan;
    plan.victim = par::fault::Victim::snapshot;
    plan.fork_failures = 3;
    plan.fork_errno = EAGAIN;
    std::optional<par::Snapshot> snapshot;
    {
      const par::fault::Armed armed(plan);
      snapshot.emplace();
    }
    {
      par::Reactor loop;
      par::SuperviseOptions options = soon();
      options.restart = restart;
      options.child = testing::in(*snapshot);
      Observed all(par::supervise(loop, serve, 1, options));
      BOOST_TEST(watching(loop, 1));
      BOOST_TEST(all.exits.size() == 3U);
      for (const par::ExitStatus& status : all.exits)
        BOOST_TEST((status.cause == par::Cause::not_started));
      all.close(loop);
    }
    snapshot.reset();
  }
}

BOOST_AUTO_TEST_CASE(a_start_without_descriptors_is_tried_again) {
  reset();
  par::Reactor loop;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  rlimit none = limit;
  none.rlim_cur = 3;
  ::setrlimit(RLIMIT_NOFILE, &none);
  par::SuperviseOptions options = soon();
  options.max_restarts = UINT_MAX;
  Observed all(par::supervise(loop, serve, 2, options));
  BOOST_TEST(loop_until(loop, [&] { return all.exits.size() >= 4; }));
  ::setrlimit(RLIMIT_NOFILE, &limit);
  BOOST_TEST(all.wait(loop, 2));
  for (const par::ExitStatus& status : all.exits)
    BOOST_TEST((status.cause == par::Cause::not_started));
  BOOST_TEST(watching(loop, 2));
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(failed_starts_count_for_the_rate) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  options.max_restarts = 2;
  board->hook_fails = true;
  Observed all(par::supervise(loop, serve, 1, options));
  loop.run();
  BOOST_REQUIRE(all.failure.has_value());
  BOOST_TEST((all.failure->code() == par::Errc::unhealthy));
  BOOST_TEST(has(all.failure->what(), "no configuration"));
  BOOST_TEST((all.events == Strings{"exit 0", "exit 0", "exit 0", "failed", "closed"}));
  BOOST_TEST(board->starts[0] == 0);
}

BOOST_AUTO_TEST_CASE(a_child_that_hangs_before_its_function_is_ended_and_followed) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  options.child.start_timeout = 20ms;
  options.max_restarts = UINT_MAX;
  board->hook_waits = true;
  Observed all(par::supervise(loop, serve, 1, options));
  BOOST_TEST(loop_until(loop, [&] { return all.exits.size() >= 2; }));
  BOOST_TEST(all.supervisor.running() == 0U);
  BOOST_TEST(board->starts[0] == 0);
  for (const par::ExitStatus& status : all.exits)
    BOOST_TEST((status.cause == par::Cause::start_timeout));
  board->hook_waits = false;
  BOOST_TEST(all.wait(loop, 1));
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(a_deadline_is_for_the_life_of_a_child) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  options.child.deadline = 20ms;
  options.stable_after = 0ms;
  options.max_restarts = UINT_MAX;
  Observed all(par::supervise(
      loop,
      [](unsigned index) {
        ++board->starts[index];
        for (;;) ::pause();
      },
      1, options));
  BOOST_TEST(loop_until(loop, [&] { return board->starts[0] >= 3; }));
  BOOST_TEST(all.exits.size() >= 2U);
  for (const par::ExitStatus& status : all.exits)
    BOOST_TEST((status.cause == par::Cause::deadline));
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(a_dead_snapshot_is_the_end) {
  reset();
  {
    par::Snapshot snapshot;
    par::Reactor loop;
    par::SuperviseOptions options;
    options.child = testing::in(snapshot);
    Observed all(par::supervise(loop, serve, 3, options));
    BOOST_TEST(watching(loop, 3));
    BOOST_TEST(all.wait(loop, 3));
    const std::vector<pid_t> pids = all.supervisor.pids();
    ::kill(snapshot.pid(), SIGKILL);
    loop.run();
    BOOST_REQUIRE(all.failure.has_value());
    BOOST_TEST((all.failure->code() == par::Errc::snapshot_lost));
    BOOST_TEST(all.count("failed") == 1);
    BOOST_TEST(all.exits.size() == 3U);
    for (const par::ExitStatus& status : all.exits)
      BOOST_TEST((status.cause == par::Cause::snapshot_lost));
    BOOST_TEST(all.events.back() == "closed");
    for (const pid_t pid : pids) BOOST_TEST(testing::gone(pid));
  }
}

BOOST_AUTO_TEST_CASE(a_stopped_snapshot_is_the_end_at_the_next_restart) {
  reset();
  {
    par::Snapshot snapshot;
    par::Reactor loop;
    par::SuperviseOptions options;
    options.child = testing::in(snapshot);
    Observed all(par::supervise(loop, serve, 2, options));
    BOOST_TEST(watching(loop, 2));
    BOOST_TEST(all.wait(loop, 2));
    snapshot.stop();
    testing::turn(loop, 3);
    BOOST_TEST(all.supervisor.running() == 2U);
    ::kill(all.supervisor.pids()[0], SIGKILL);
    loop.run();
    BOOST_REQUIRE(all.failure.has_value());
    BOOST_TEST(all.exits.size() == 2U);
    BOOST_TEST(board->drained == 1);
  }
}

BOOST_AUTO_TEST_CASE(children_of_a_lost_replica_are_restarted_by_another_one) {
  reset();
  {
    par::SnapshotOptions two;
    two.replicas = 2;
    par::Snapshot snapshot(two);
    par::Reactor loop;
    par::SuperviseOptions options = soon();
    options.child = testing::in(snapshot);
    Observed all(par::supervise(loop, serve, 4, options));
    BOOST_TEST(watching(loop, 4));
    BOOST_TEST(all.wait(loop, 4));
    ::kill(snapshot.pids()[0], SIGKILL);
    BOOST_TEST(watching(loop, 6));
    BOOST_TEST(all.wait(loop, 4));
    BOOST_TEST(all.exits.size() == 2U);
    BOOST_TEST(!all.failure.has_value());
    all.close(loop);
  }
}

// ---- a rolling restart ----

BOOST_AUTO_TEST_CASE(a_restart_replaces_place_after_place_and_none_is_ever_empty) {
  reset();
  par::Reactor loop;
  par::Supervisor all = par::supervise(loop, serve, 3);
  BOOST_TEST(watching(loop, 3));
  BOOST_TEST(loop_until(loop, [&] { return all.running() == 3; }));
  const std::vector<pid_t> before = all.pids();
  Strings events;
  unsigned fewest = 3;
  all.on_start([&](unsigned index, pid_t) {
    events.push_back("start " + std::to_string(index));
    fewest = std::min(fewest, all.running());
  });
  all.on_exit([&](unsigned index, const par::ExitStatus& status) {
    events.push_back("exit " + std::to_string(index));
    BOOST_TEST(status.pid == before.at(index));
    BOOST_TEST((status.cause == par::Cause::normal));
    fewest = std::min(fewest, all.running());
  });
  all.restart();
  BOOST_TEST(loop_until(loop, [&] { return events.size() == 6; }));
  BOOST_TEST((events == Strings{"start 0", "exit 0", "start 1", "exit 1", "start 2", "exit 2"}));
  BOOST_TEST(fewest == 3U);
  BOOST_TEST(all_differ(all.pids(), before));
  BOOST_TEST(watching(loop, 6));
  BOOST_TEST(board->drained == 3);
  all.on_start(nullptr);
  all.on_exit(nullptr);
  all.close();
  loop.run();
  BOOST_TEST(board->drained == 6);
}

BOOST_AUTO_TEST_CASE(a_restart_replaces_as_many_places_at_once_as_it_may) {
  for (const unsigned at_once : {1U, 2U, 0U}) {
    reset();
    par::Reactor loop;
    par::SuperviseOptions options;
    options.restarts_at_once = at_once;
    options.grace = 10h;
    Observed all(par::supervise(loop, hold_on, 3, options));
    BOOST_TEST(watching(loop, 3));
    BOOST_TEST(all.wait(loop, 3));
    const std::vector<pid_t> before = all.supervisor.pids();
    all.events.clear();
    all.supervisor.restart();
    const std::size_t expected = at_once == 0 ? 3 : at_once;
    BOOST_TEST(loop_until(loop, [&] { return all.events.size() == expected; }));
    testing::turn(loop, 20);
    BOOST_TEST(all.events.size() == expected);  // the old ones have not ended
    BOOST_TEST(all.supervisor.running() == 3U);
    board->released = true;
    BOOST_TEST(loop_until(loop, [&] { return all.events.size() == 6; }));
    BOOST_TEST(all_differ(all.supervisor.pids(), before));
    BOOST_TEST(watching(loop, 6));
    all.close(loop);
  }
}

BOOST_AUTO_TEST_CASE(a_restart_may_end_the_old_child_first) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.stop_first = true;
  Observed all(par::supervise(
      loop,
      [](unsigned index) {
        if (board->inside[index]++ != 0) ++board->collisions;
        wait_for_sigterm();
        --board->inside[index];
      },
      2, options));
  BOOST_TEST(watching(loop, 2));
  BOOST_TEST(all.wait(loop, 2));
  const std::vector<pid_t> before = all.supervisor.pids();
  all.events.clear();
  all.supervisor.restart();
  BOOST_TEST(loop_until(loop, [&] { return all.events.size() == 4; }));
  BOOST_TEST((all.events == Strings{"exit 0", "start 0", "exit 1", "start 1"}));
  BOOST_TEST(all_differ(all.supervisor.pids(), before));
  BOOST_TEST(watching(loop, 4));
  // A place that is given up and comes back has one child at a time, too.
  all.supervisor.resize(1);
  all.supervisor.resize(2);
  BOOST_TEST(watching(loop, 5));
  BOOST_TEST(board->collisions == 0);
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(a_restart_during_a_restart_replaces_the_new_children_too) {
  reset();
  par::Reactor loop;
  par::Supervisor all = par::supervise(loop, serve, 2);
  BOOST_TEST(loop_until(loop, [&] { return all.running() == 2; }));
  std::vector<pid_t> at_second;
  all.on_start([&](unsigned, pid_t) {
    if (!at_second.empty()) return;
    at_second = all.pids();
    all.restart();
  });
  int exits = 0;
  all.on_exit([&](unsigned, const par::ExitStatus&) { ++exits; });
  all.restart();
  BOOST_TEST(loop_until(loop, [&] { return exits == 3; }));
  BOOST_TEST(loop_until(loop, [&] { return all_differ(all.pids(), at_second); }));
  testing::turn(loop, 5);
  BOOST_TEST(exits == 3);  // place 0 was replaced twice, place 1 once
  all.close();
  loop.run();
}

BOOST_AUTO_TEST_CASE(a_replacement_that_cannot_start_leaves_the_old_child_running) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  options.max_restarts = 0;  // no place is without a child
  Observed all(par::supervise(loop, serve, 2, options));
  BOOST_TEST(watching(loop, 2));
  BOOST_TEST(all.wait(loop, 2));
  const std::vector<pid_t> before = all.supervisor.pids();
  board->hook_fails = true;
  all.supervisor.restart();
  BOOST_TEST(loop_until(loop, [&] { return all.exits.size() == 3; }));
  BOOST_TEST((all.supervisor.pids() == before));
  BOOST_TEST(!all.failure.has_value());
  for (const par::ExitStatus& status : all.exits) BOOST_TEST(status.code() == 70);
  board->hook_fails = false;
  BOOST_TEST(loop_until(loop, [&] { return all_differ(all.supervisor.pids(), before); }));
  BOOST_TEST(watching(loop, 4));
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(an_old_child_that_dies_is_followed_by_its_replacement) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.first_pause = options.longest_pause = 10h;
  options.max_restarts = 0;
  Observed all(par::supervise(loop, serve, 1, options));
  BOOST_TEST(watching(loop, 1));
  BOOST_TEST(all.wait(loop, 1));
  const std::vector<pid_t> before = all.supervisor.pids();
  board->hook_waits = true;
  all.supervisor.restart();
  BOOST_TEST(loop_until(loop, [] { return board->waiting == 1; }));
  ::kill(before[0], SIGKILL);
  BOOST_TEST(loop_until(loop, [&] { return all.exits.size() == 1; }));
  BOOST_TEST(all.exits[0].pid == before[0]);
  BOOST_TEST(all.supervisor.running() == 0U);
  board->hook_waits = false;
  BOOST_TEST(watching(loop, 2));
  BOOST_TEST(all.wait(loop, 1));
  BOOST_TEST(!all.failure.has_value());
  all.close(loop);
}

// ---- drain ----

BOOST_AUTO_TEST_CASE(close_lets_children_finish_their_work) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.grace = 10h;
  Observed all(par::supervise(loop, hold_on, 2, options));
  BOOST_TEST(watching(loop, 2));
  BOOST_TEST(all.wait(loop, 2));
  all.supervisor.close();
  BOOST_TEST(all.supervisor.running() == 0U);
  testing::turn(loop, 10);
  BOOST_TEST(all.exits.empty());
  board->released = true;
  loop.run();
  BOOST_REQUIRE(all.exits.size() == 2U);
  for (const par::ExitStatus& status : all.exits) BOOST_TEST((status.cause == par::Cause::normal));
  BOOST_TEST(all.closed == 1);
}

BOOST_AUTO_TEST_CASE(a_child_that_ignores_sigterm_is_killed_after_the_grace_time) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.child.grace = 20ms;
  Observed all(par::supervise(
      loop,
      [] {
        ::signal(SIGTERM, SIG_IGN);
        ++board->watching;
        for (;;) ::pause();
      },
      2, options));
  BOOST_TEST(watching(loop, 2));
  all.close(loop);
  BOOST_REQUIRE(all.exits.size() == 2U);
  for (const par::ExitStatus& status : all.exits) {
    BOOST_TEST(status.signal() == SIGKILL);
    BOOST_TEST((status.cause == par::Cause::terminated));
  }
}

BOOST_AUTO_TEST_CASE(a_shutdown_shortens_the_grace_time_of_close) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.grace = 10h;
  Observed all(par::supervise(loop, hold_on, 2, options));
  BOOST_TEST(watching(loop, 2));
  all.supervisor.close();
  testing::turn(loop, 5);
  all.supervisor.shutdown(0ms);
  loop.run();
  BOOST_TEST(all.exits.size() == 2U);
  BOOST_TEST(all.closed == 1);
}

BOOST_AUTO_TEST_CASE(close_takes_effect_before_anything_has_started) {
  reset();
  par::Reactor loop;
  Observed all(par::supervise(loop, serve, 3));
  all.close(loop);
  BOOST_TEST(all.exits.size() == 3U);
  BOOST_TEST(all.supervisor.running() == 0U);
}

// ---- resize ----

BOOST_AUTO_TEST_CASE(places_can_be_added_and_taken_away) {
  reset();
  par::Reactor loop;
  Observed all(par::supervise(loop, serve, 1));
  BOOST_TEST(watching(loop, 1));
  BOOST_TEST(all.wait(loop, 1));
  const pid_t first = all.supervisor.pids()[0];
  all.supervisor.resize(4);
  BOOST_TEST(watching(loop, 4));
  BOOST_TEST(all.wait(loop, 4));
  BOOST_TEST(all.supervisor.pids().size() == 4U);
  all.supervisor.resize(2);
  BOOST_TEST(all.supervisor.running() == 2U);
  BOOST_TEST(loop_until(loop, [&] { return all.exits.size() == 2; }));
  BOOST_TEST(all.count("exit 2") == 1);
  BOOST_TEST(all.count("exit 3") == 1);
  BOOST_TEST(board->drained == 2);
  all.supervisor.resize(3);
  BOOST_TEST(watching(loop, 5));
  BOOST_TEST(all.wait(loop, 3));
  BOOST_TEST(board->starts[2] == 2);
  BOOST_TEST(all.supervisor.pids()[0] == first);
  BOOST_TEST(has(testing::misuse_of([&] { all.supervisor.resize(0); }), "at least one place"));
  BOOST_TEST(has(testing::misuse_of([&] { all.supervisor.resize(5000); }), "at most 4096"));
  BOOST_TEST(all.supervisor.running() == 3U);
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(places_can_be_taken_away_during_a_restart) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.restarts_at_once = 0;
  options.grace = 10h;
  Observed all(par::supervise(loop, hold_on, 3, options));
  BOOST_TEST(watching(loop, 3));
  BOOST_TEST(all.wait(loop, 3));
  all.supervisor.restart();
  testing::turn(loop);
  all.supervisor.resize(1);
  board->released = true;
  BOOST_TEST(loop_until(loop, [&] { return all.exits.size() == 5; }));
  BOOST_TEST(all.supervisor.running() == 1U);
  all.close(loop);
  BOOST_TEST(all.exits.size() == 6U);
}

// ---- callbacks and handles ----

BOOST_AUTO_TEST_CASE(each_callback_may_drop_the_supervisor) {
  for (const char* where : {"start", "exit", "failed", "closed"}) {
    reset();
    par::Reactor loop;
    par::SuperviseOptions options = soon();
    options.max_restarts = 0;
    options.child.linger = 0ms;
    board->crashes[0] = 1;
    auto owner = std::make_unique<par::Supervisor>(par::supervise(loop, serve, 2, options));
    std::vector<pid_t> pids;
    bool dropped = false;
    const auto drop_at = [&](const std::string& here) {
      if (here != where || !owner) return;
      dropped = true;
      owner.reset();
    };
    owner->on_start([&](unsigned, pid_t pid) {
      pids.push_back(pid);
      drop_at("start");
    });
    owner->on_exit([&](unsigned, const par::ExitStatus&) { drop_at("exit"); });
    owner->on_failed([&](const par::Error&) { drop_at("failed"); });
    owner->on_closed([&] { drop_at("closed"); });
    loop.run();
    BOOST_TEST(dropped, where);
    for (const pid_t pid : pids) BOOST_TEST(testing::gone(pid));
    const auto none = [] { return testing::children_of(par::default_snapshot().pid()).empty(); };
    BOOST_TEST(testing::eventually(none));
  }
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_callback_ends_run_and_nothing_else) {
  reset();
  par::Reactor loop;
  par::Supervisor all = par::supervise(loop, serve, 1, soon());
  int starts = 0;
  int exits = 0;
  all.on_start([&](unsigned, pid_t) {
    if (++starts == 1) throw std::runtime_error("start");
  });
  all.on_exit([&](unsigned, const par::ExitStatus&) {
    if (++exits == 1) throw std::runtime_error("exit");
  });
  const auto thrown_by_run = [&] {
    try {
      loop.run();
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  BOOST_TEST(thrown_by_run() == "start");
  BOOST_TEST(all.running() == 1U);
  ::kill(all.pids()[0], SIGKILL);
  BOOST_TEST(thrown_by_run() == "exit");
  BOOST_TEST(loop_until(loop, [&] { return starts == 2; }));
  all.on_closed([] { throw std::runtime_error("closed"); });
  all.close();
  BOOST_TEST(thrown_by_run() == "closed");
  loop.run();
  BOOST_TEST(exits == 2);
}

BOOST_AUTO_TEST_CASE(on_exit_may_prevent_the_restart) {
  reset();
  par::Reactor loop;
  board->crashes[0] = 1;
  par::Supervisor all = par::supervise(loop, serve, 1, soon());
  int closed = 0;
  all.on_exit([&](unsigned, const par::ExitStatus&) { all.close(); });
  all.on_closed([&] { ++closed; });
  loop.run();
  BOOST_TEST(closed == 1);
  BOOST_TEST(board->starts[0] == 1);
}

BOOST_AUTO_TEST_CASE(a_dropped_supervisor_gives_its_children_their_linger_time) {
  reset();
  par::Reactor loop;
  std::vector<pid_t> pids;
  {
    par::SuperviseOptions options;
    options.child.linger = 1ms;
    options.child.name = "lingers";
    Observed all(par::supervise(loop, serve, 2, options));
    BOOST_TEST(watching(loop, 2));
    BOOST_TEST(all.wait(loop, 2));
    pids = all.supervisor.pids();
    all.supervisor = par::Supervisor();
    BOOST_TEST(!all.supervisor);
    BOOST_TEST(all.supervisor.running() == 0U);
    BOOST_TEST(all.supervisor.pids().empty());
    loop.run();
    BOOST_TEST(all.exits.empty());
  }
  for (const pid_t pid : pids) BOOST_TEST(testing::gone(pid));
  BOOST_TEST(board->drained == 2);
}

BOOST_AUTO_TEST_CASE(a_supervisor_may_outlive_its_reactor) {
  reset();
  par::SuperviseOptions options;
  options.child.linger = 0ms;
  par::Supervisor all;
  std::vector<pid_t> pids;
  int calls = 0;
  {
    par::Reactor loop;
    all = par::supervise(loop, serve, 2, options);
    BOOST_TEST(watching(loop, 2));
    BOOST_TEST(loop_until(loop, [&] { return all.running() == 2; }));
    pids = all.pids();
    all.on_exit([&](unsigned, const par::ExitStatus&) { ++calls; });
    all.on_closed([&] { ++calls; });
  }
  for (const pid_t pid : pids) BOOST_TEST(testing::gone(pid));
  BOOST_TEST(all.running() == 0U);
  all.restart();
  all.resize(3);
  all.close();
  all.shutdown(0ms);
  all = par::Supervisor();
  BOOST_TEST(calls == 0);
}

BOOST_AUTO_TEST_CASE(a_copy_of_the_program_may_destroy_its_supervisor) {
  reset();
  par::Reactor loop;
  Observed all(par::supervise(loop, serve, 2));
  BOOST_TEST(watching(loop, 2));
  BOOST_TEST(all.wait(loop, 2));
  const int status = testing::elsewhere([&] {
    all.supervisor.restart();
    all.supervisor.resize(1);
    all.supervisor.close();
    all.supervisor = par::Supervisor();
    return 7;
  });
  BOOST_TEST(status == 7);
  testing::turn(loop, 10);
  BOOST_TEST(all.supervisor.running() == 2U);
  BOOST_TEST(all.exits.empty());
  BOOST_TEST(board->drained == 0);
  all.close(loop);
}

// ---- what children can do ----

BOOST_AUTO_TEST_CASE(spare_children_take_places) {
  reset();
  par::SnapshotOptions ahead;
  ahead.spares = 2;
  par::Snapshot snapshot(ahead);
  par::Reactor loop;
  par::SuperviseOptions options = soon();
  options.child = testing::in(snapshot);
  board->crashes[1] = 2;
  Observed all(par::supervise(loop, serve, 4, options));
  BOOST_TEST(watching(loop, 4));
  BOOST_TEST(all.wait(loop, 4));
  BOOST_TEST(board->starts[0] == 1);
  BOOST_TEST(board->starts[1] == 3);
  BOOST_TEST(board->starts[3] == 1);
  all.close(loop);
}

BOOST_AUTO_TEST_CASE(what_a_child_has_forked_ends_with_it) {
  reset();
  par::Reactor loop;
  Observed all(par::supervise(
      loop,
      [](unsigned index) {
        const pid_t copy = ::fork();
        if (copy == 0 && index == 0) return;  // the copy ends, the child does not
        if (copy == 0)
          for (;;) ::pause();
        if (index == 1) board->left_behind = copy;
        wait_for_sigterm();
      },
      2));
  BOOST_TEST(watching(loop, 2));
  BOOST_TEST(all.wait(loop, 2));
  const pid_t left = board->left_behind;
  BOOST_TEST(testing::process_exists(left));
  all.close(loop);
  BOOST_TEST(all.exits.size() == 2U);
  BOOST_TEST(testing::gone(left));
}

BOOST_AUTO_TEST_CASE(a_child_may_execute_another_program) {
  reset();
  par::Reactor loop;
  par::SuperviseOptions options;
  options.child.linger = 0ms;  // for one that merely closes its descriptors
  Observed all(par::supervise(
      loop,
      [] {
        par::this_child::will_exec();
        ::execl("/bin/sleep", "sleep", "1000", nullptr);
        ::_exit(1);
      },
      1, options));
  BOOST_TEST(all.wait(loop, 1));
  const pid_t pid = all.supervisor.pids()[0];
  const auto sleeps = [pid] {
    char name[64] = {};
    const std::string link = "/proc/" + std::to_string(pid) + "/exe";
    const ssize_t size = ::readlink(link.c_str(), name, sizeof name - 1);
    return size > 0 && !has(name, "supervise");
  };
  BOOST_TEST(loop_until(loop, sleeps));
  testing::turn(loop, 20);
  BOOST_TEST(all.supervisor.running() == 1U);
  BOOST_TEST(all.exits.empty());
  all.close(loop);
  BOOST_REQUIRE(all.exits.size() == 1U);
  BOOST_TEST(all.exits[0].signal() == SIGTERM);
  BOOST_TEST((all.exits[0].cause == par::Cause::terminated));
}

BOOST_AUTO_TEST_CASE(output_of_children_can_be_captured) {
  reset();
  par::Reactor loop;
  Strings lines;
  par::SuperviseOptions options;
  options.restart = par::Restart::on_failure;
  options.child.out = par::Stdio::capture();
  options.child.on_line = [&](const par::OutputLine& line) { lines.emplace_back(line.text); };
  Observed all(par::supervise(
      loop, [](unsigned index) { std::printf("place %u\n", index); }, 3, options));
  loop.run();
  std::sort(lines.begin(), lines.end());
  BOOST_TEST((lines == Strings{"place 0", "place 1", "place 2"}));
  BOOST_TEST(all.closed == 1);
}

BOOST_AUTO_TEST_CASE(a_child_may_supervise_children_of_its_own) {
  reset();
  par::Reactor loop;
  Observed all(par::supervise(
      loop,
      [](unsigned) {
        par::Reactor& own = par::this_reactor();
        par::SuperviseOptions options;
        options.restart = par::Restart::on_failure;
        board->crashes[1] = 1;
        par::Supervisor nested = par::supervise(
            own,
            [] {
              if (board->crashes[1]-- > 0) ::_exit(3);
              ++board->drained;
            },
            1, options);
        own.run();
      },
      1,
      [] {
        par::SuperviseOptions options;
        options.restart = par::Restart::on_failure;
        return options;
      }()));
  loop.run();
  BOOST_TEST(board->drained == 1);
  BOOST_REQUIRE(all.exits.size() == 1U);
  BOOST_TEST((all.exits[0].cause == par::Cause::normal));
}

BOOST_AUTO_TEST_CASE(children_end_with_a_program_that_is_killed) {
  reset();
  const int status = testing::elsewhere([] {
    par::Snapshot snapshot;
    par::Reactor loop;
    par::SuperviseOptions options;
    options.child = testing::in(snapshot);
    par::Supervisor all = par::supervise(
        loop,
        [](unsigned index) {
          ::signal(SIGTERM, SIG_IGN);
          board->inside[index] = static_cast<int>(::getpid());
          ++board->watching;
          for (;;) ::pause();  // as in accept()
        },
        2, options);
    watching(loop, 2);
    ::raise(SIGKILL);
    return 0;
  });
  BOOST_TEST(status == 100 + SIGKILL);
  BOOST_TEST(board->inside[0] > 0);
  BOOST_TEST(testing::gone(board->inside[0]));
  BOOST_TEST(testing::gone(board->inside[1]));
}

// ---- servers ----

namespace {

// A listening socket on the loopback interface.
par::Fd listening() {
  par::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  BOOST_REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  BOOST_REQUIRE(::listen(fd.get(), 64) == 0);
  return fd;
}

int port_of(const par::Fd& listener) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

// The pid that answers, 0 if none does.
int ask(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<in_port_t>(port));
  const par::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return 0;
  int pid = 0;
  return ::recv(fd.get(), &pid, sizeof pid, MSG_WAITALL) == sizeof pid ? pid : 0;
}

// Accepts at descriptor 0 until SIGTERM.
void accept_at_input() {
  par::Reactor& loop = par::this_reactor();
  par::Watch term;
  par::Watch ready = loop.on_readable(0, [] {
    const int client = ::accept4(0, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    const int pid = ::getpid();
    static_cast<void>(::send(client, &pid, sizeof pid, MSG_NOSIGNAL));
    ::close(client);
  });
  term = loop.on_signal(SIGTERM, [&] {
    ready.cancel();
    term.cancel();
  });
  ++board->watching;
  loop.run();
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_server_answers_each_request_during_restarts) {
  reset();
  par::Reactor loop;
  par::Fd listener = listening();
  par::SuperviseOptions options = soon();
  options.child.in = par::Stdio::fd(listener.get());
  Observed all(par::supervise(loop, accept_at_input, 2, options));
  BOOST_TEST(watching(loop, 2));
  BOOST_TEST(all.wait(loop, 2));
  const std::vector<pid_t> before = all.supervisor.pids();
  std::set<int> answered_by;
  int unanswered = 0;
  int requests = 0;
  const int port = port_of(listener);
  auto client = par::run(loop, ask);
  std::function<void()> request = [&] {
    client(port, [&](par::Result<int> pid) {
      if (!pid || *pid == 0)
        ++unanswered;
      else
        answered_by.insert(*pid);
      ++requests;
      if (all.closed == 0 && all.supervisor.running() > 0) request();
    });
  };
  request();
  BOOST_TEST(loop_until(loop, [&] { return requests >= 10; }));
  ::kill(before[0], SIGKILL);
  BOOST_TEST(watching(loop, 3));
  BOOST_TEST(all.wait(loop, 2));
  all.supervisor.restart();
  BOOST_TEST(loop_until(loop, [&] { return all.exits.size() == 3; }));
  BOOST_TEST(all.wait(loop, 2));
  BOOST_TEST(all_differ(all.supervisor.pids(), before));
  const int then = requests;
  BOOST_TEST(loop_until(loop, [&] { return requests >= then + 10; }));
  // A request whose child was killed may be lost; no other one is.
  BOOST_TEST(unanswered <= 1);
  BOOST_TEST(answered_by.size() >= 2U);
  all.supervisor.close();
  BOOST_TEST(loop_until(loop, [&] { return all.closed == 1; }));
  // A request that came last waits in the socket, and ends with it.
  all.supervisor = par::Supervisor();
  listener.reset();
  loop.run();
}

BOOST_AUTO_TEST_CASE(a_start_runs_before_the_function_in_each_child) {
  par::Reactor loop;
  static int started = 0;
  par::SuperviseOptions options;
  options.restart = par::Restart::on_failure;
  options.child.on_start = par::bind([](int x) { started = x; }, 5);
  auto all = par::supervise(
      loop, [](unsigned index) { std::_Exit(started == 5 + static_cast<int>(index) ? 0 : 1); }, 1,
      options);
  std::vector<int> statuses;
  all.on_exit([&](unsigned, const par::ExitStatus& status) { statuses.push_back(status.code()); });
  loop.run();
  BOOST_TEST(statuses == std::vector<int>{0}, boost::test_tools::per_element());
}
