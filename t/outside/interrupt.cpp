// interrupt.cpp - SIGINT and SIGTERM end a program in order, wherever it waits.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "program.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <event2/event.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace par = evparallel;
using testing::ctrl_c;
using testing::gone;
using testing::has;
using testing::misuse_of;
using testing::Program;
using testing::Terminal;
using testing::Tube;
using namespace std::chrono_literals;

namespace {

constexpr int signals[] = {SIGINT, SIGTERM};

// The result of Program::end() after the death by a signal.
constexpr int died_of(int signum) {
  return 100 + signum;
}

struct BaseDeleter {
  void operator()(event_base* base) const { ::event_base_free(base); }
};
using Base = std::unique_ptr<event_base, BaseDeleter>;

// ---- children that do not answer ----

int births = -1;  // a tube for their pids

int hang(int) {
  const pid_t pid = ::getpid();
  if (::write(births, &pid, sizeof pid) != static_cast<ssize_t>(sizeof pid)) return 1;
  for (;;) ::pause();
}

par::PoolOptions two_workers() {
  par::PoolOptions options;
  options.workers = 2;
  return options;
}
constexpr int items = 2;

// ---- the ways to wait: each makes calls of hang(), and returns only if it is interrupted ----

using Wait = void (*)();

struct Way {
  const char* name;
  Wait wait;
  int children;
};

void begin_two(par::Remote<int(int)>& f, par::Remote<int(int)>& g) {
  f(1, [](par::Result<int>) {});
  g(2, [](par::Result<int>) {});
}

void wait_in_run() {
  par::Reactor loop;
  auto f = par::run(loop, hang);
  auto g = par::run(loop, hang);
  begin_two(f, g);
  loop.run();
}

void wait_in_run_for() {
  par::Reactor loop;
  auto f = par::run(loop, hang);
  auto g = par::run(loop, hang);
  begin_two(f, g);
  loop.run_for(1h);
}

// A loop of frames.
void wait_in_short_runs() {
  par::Reactor loop;
  auto f = par::run(loop, hang);
  auto g = par::run(loop, hang);
  begin_two(f, g);
  for (;;) {
    loop.run_for(0ns);
    ::poll(nullptr, 0, 1);
  }
}

void wait_in_polls() {
  par::Reactor loop;
  auto f = par::run(loop, hang);
  auto g = par::run(loop, hang);
  begin_two(f, g);
  for (;;) {
    ::poll(nullptr, 0, 1);
    loop.poll();
  }
}

void wait_for_a_call() {
  par::Reactor loop;
  auto f = par::run(loop, hang);
  static_cast<void>(f.wait(1));
}

void wait_for_a_call_of_a_pool() {
  par::Reactor loop;
  auto pool = par::pool(loop, hang, two_workers());
  static_cast<void>(pool.wait(1));
}

void wait_for_a_map_of_a_pool() {
  par::Reactor loop;
  auto pool = par::pool(loop, hang, two_workers());
  static_cast<void>(pool.wait_map(std::vector<int>(items)));
}

void wait_for_a_map() {
  static_cast<void>(par::map(std::vector<int>(items), hang, two_workers()));
}

void wait_in_run_of_a_borrowed_base() {
  const Base base(::event_base_new());
  par::Reactor loop(base.get());
  auto f = par::run(loop, hang);
  auto g = par::run(loop, hang);
  begin_two(f, g);
  loop.run();
}

void wait_for_a_process() {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int>) { hang(0); });
  loop.run();
}

constexpr Way ways[] = {
    {"run()", wait_in_run, 2},
    {"run_for(1h)", wait_in_run_for, 2},
    {"run_for(0)", wait_in_short_runs, 2},
    {"poll()", wait_in_polls, 2},
    {"Remote::wait()", wait_for_a_call, 1},
    {"Pool::wait()", wait_for_a_call_of_a_pool, 1},
    {"Pool::wait_map()", wait_for_a_map_of_a_pool, items},
    {"map()", wait_for_a_map, items},
    {"run() of a borrowed base", wait_in_run_of_a_borrowed_base, 2},
    {"a process", wait_for_a_process, 1},
};

// Starts a program, reads the pids of its children, sends the signal, and returns its end.
int end_after(int signum, int children, const std::function<int()>& f) {
  const Tube born;
  births = born.fds[1];
  Program program(f);
  std::vector<pid_t> pids(static_cast<std::size_t>(children));
  for (pid_t& pid : pids) BOOST_REQUIRE(born.take(pid));
  // It waits by now, most of the time.  If it does not, the signal is kept.
  BOOST_TEST(testing::eventually([&] { return testing::state_of(program.pid()) == 'S'; }));
  ::kill(program.pid(), signum);
  const int end = program.end();
  for (const pid_t pid : pids) BOOST_TEST(gone(pid));
  return end;
}

// Raises the signal for this process, where Interrupts catches it.
void interrupt(int signum = SIGINT) {
  ::kill(::getpid(), signum);
}

// The signal by which the call is interrupted, or 0.
template <class F>
int interrupted_by(F f) {
  try {
    f();
  } catch (const par::Interrupted& interrupted) {
    return interrupted.signal();
  }
  return 0;
}

std::sig_atomic_t volatile handled = 0;

}  // namespace

// ---- each way to wait ----

BOOST_AUTO_TEST_CASE(a_signal_ends_each_way_to_wait_and_the_children) {
  for (const Way& way : ways)
    for (const int signum : signals) {
      BOOST_TEST_CONTEXT(way.name) {
        const int end = end_after(signum, way.children, [&] {
          par::init();
          return par::interruptible().run(way.wait);
        });
        BOOST_TEST(end == 128 + signum);
      }
    }
}

BOOST_AUTO_TEST_CASE(an_interrupted_that_is_caught_by_hand_has_the_status) {
  const int end = end_after(SIGTERM, 1, [] {
    par::init();
    const par::Interrupts guard = par::interruptible();
    try {
      wait_for_a_call();
    } catch (const par::Interrupted& interrupted) {
      return interrupted.exit_status();
    }
    return 0;
  });
  BOOST_TEST(end == 143);
}

BOOST_AUTO_TEST_CASE(a_map_without_a_snapshot_is_interrupted) {
  const int end = end_after(SIGINT, items, [] { return par::interruptible().run(wait_for_a_map); });
  BOOST_TEST(end == 130);
}

// The children of the program are in its group, and the terminal or a shell interrupts all of them.
BOOST_AUTO_TEST_CASE(a_signal_to_the_whole_group_ends_the_program_in_order) {
  const Tube born;
  births = born.fds[1];
  Program program([] {
    par::init();
    return par::interruptible().run([] {
      par::Reactor loop;
      par::Options options;
      options.process_group = par::ProcessGroup::parent;
      auto f = par::run(loop, hang, options);
      for (;;) static_cast<void>(f.wait(1));
    });
  });
  pid_t child = 0;
  BOOST_REQUIRE(born.take(child));
  ::kill(-program.pid(), SIGINT);
  BOOST_TEST(program.end() == 130);
  BOOST_TEST(gone(child));
}

// ---- when the signal comes ----

BOOST_AUTO_TEST_CASE(a_signal_that_came_before_ends_the_next_run_at_once) {
  testing::allow_descriptors(1);
  par::Snapshot snapshot;
  par::Reactor loop;
  auto f = par::run(
      loop, [](int x) { return x; }, testing::in(snapshot));
  for (const int signum : signals) {
    const auto after_signal = [&](auto call) {
      const par::Interrupts guard = par::interruptible();
      interrupt(signum);
      return interrupted_by(call);
    };
    BOOST_TEST(after_signal([&] { loop.run(); }) == signum);  // nothing is pending
    BOOST_TEST(after_signal([&] { loop.run_for(1h); }) == signum);
    BOOST_TEST(after_signal([&] { loop.poll(); }) == signum);
    BOOST_TEST(after_signal([&] { static_cast<void>(f.wait(1)); }) == signum);
  }
  loop.run();
  BOOST_TEST(f.pending() == 0u);
  BOOST_TEST(f.wait(5).value() == 5);
}

BOOST_AUTO_TEST_CASE(a_signal_in_a_callback_ends_the_run_after_it) {
  par::Reactor loop;
  const par::Interrupts guard = par::interruptible();
  bool returned = false;
  bool later = false;
  const par::Timer first = loop.after(0ns, [&] {
    interrupt();
    returned = true;
  });
  const par::Timer second = loop.after(1h, [&] { later = true; });
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGINT);
  BOOST_TEST(returned);
  BOOST_TEST(!later);
}

BOOST_AUTO_TEST_CASE(without_a_signal_nothing_changes) {
  testing::allow_descriptors(1);
  par::Snapshot snapshot;
  par::Reactor loop;
  auto f = par::run(
      loop, [](int x) { return 2 * x; }, testing::in(snapshot));
  const par::Interrupts guard = par::interruptible(loop);
  loop.run();  // it does not hold the loop
  BOOST_TEST(!loop.run_for(1h));
  BOOST_TEST(f.wait(4).value() == 8);
}

BOOST_AUTO_TEST_CASE(each_signal_ends_one_run) {
  par::Reactor loop;
  const par::Interrupts guard = par::interruptible();
  interrupt(SIGTERM);
  interrupt(SIGINT);
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGINT);
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGTERM);
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == 0);
}

// The end of a service: it drains, and can still be told to hurry.
BOOST_AUTO_TEST_CASE(a_program_drains_after_the_signal) {
  testing::allow_descriptors(1);
  par::Snapshot snapshot;
  par::Reactor loop;
  auto f = par::run(
      loop, [](int x) { return 2 * x; }, testing::in(snapshot));
  const par::Interrupts guard = par::interruptible();
  int answer = 0;
  f(21, [&](par::Result<int> r) { answer = r.value(); });
  interrupt(SIGTERM);
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGTERM);
  loop.run();
  BOOST_TEST(answer == 42);
}

// ---- the second signal ----

BOOST_AUTO_TEST_CASE(a_second_signal_ends_a_program_that_does_not_end) {
  for (const bool unwinds : {true, false}) {
    const Tube hangs;
    Program program([&] {
      return par::interruptible().run([&] {
        const auto hang_here = [&] {
          hangs.put('h');
          for (;;) ::pause();
        };
        par::Reactor loop;
        const par::Timer late = loop.after(1h, [] {});
        const par::Timer now = loop.after(0ns, [&] {
          if (!unwinds) hang_here();  // the loop does not see the signal
          interrupt();
        });
        if (interrupted_by([&] { loop.run(); }) != 0) hang_here();
      });
    });
    char byte = 0;
    BOOST_REQUIRE(hangs.take(byte));
    // Signals that come at almost the same time count as one.
    BOOST_TEST(testing::eventually([&] {
      ::kill(program.pid(), SIGINT);
      return testing::state_of(program.pid()) == 'Z';
    }));
    BOOST_TEST(program.end() == died_of(SIGINT));
  }
}

// As timeout(1) sends it, to the process and to its group.
BOOST_AUTO_TEST_CASE(a_signal_that_comes_twice_at_once_counts_as_one) {
  const auto end = [] {
    return testing::elsewhere([] {
      const int status = par::interruptible().run([] {
        sigset_t both;
        sigset_t before;
        sigemptyset(&both);
        sigaddset(&both, SIGTERM);
        ::pthread_sigmask(SIG_BLOCK, &both, &before);
        ::raise(SIGTERM);             // of the thread
        ::kill(::getpid(), SIGTERM);  // of the process
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        par::Reactor loop;
        loop.run();
      });
      return status == 143 ? 0 : 1;
    });
  };
  // On a busy machine the two may be far apart.
  int last = -1;
  for (int i = 0; i < 10 && last != 0; ++i) last = end();
  BOOST_TEST(last == 0);
}

// ---- the life of the guard ----

BOOST_AUTO_TEST_CASE(after_its_end_the_former_disposition_is_in_force) {
  struct sigaction own {};
  own.sa_handler = [](int) { handled = handled + 1; };
  struct sigaction before {};
  ::sigaction(SIGINT, &own, &before);
  {
    par::Reactor loop;
    handled = 0;
    par::Interrupts guard = par::interruptible();
    interrupt();
    BOOST_TEST(handled == 0);
    BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGINT);
    guard.release();
    interrupt();
    BOOST_TEST(handled == 1);
    loop.run();
  }
  ::sigaction(SIGINT, &before, nullptr);

  for (const int signum : signals) {
    const int status = testing::elsewhere([&] {
      ::signal(signum, SIG_DFL);
      { const par::Interrupts guard = par::interruptible(); }
      interrupt(signum);
      return 1;
    });
    BOOST_TEST(status == died_of(signum));
  }
}

BOOST_AUTO_TEST_CASE(a_signal_that_no_run_has_thrown_is_raised_at_the_end) {
  struct sigaction own {};
  own.sa_handler = [](int) { handled = handled + 1; };
  struct sigaction before {};
  ::sigaction(SIGINT, &own, &before);
  handled = 0;
  {
    const par::Interrupts guard = par::interruptible();
    interrupt();
    BOOST_TEST(handled == 0);
  }
  BOOST_TEST(handled == 1);
  ::sigaction(SIGINT, &before, nullptr);
}

BOOST_AUTO_TEST_CASE(an_ignored_signal_stays_ignored) {
  const int status = testing::elsewhere([] {
    ::signal(SIGINT, SIG_IGN);
    ::signal(SIGTERM, SIG_DFL);
    const par::Interrupts guard = par::interruptible();
    par::Reactor loop;
    for (int i = 0; i < 3; ++i) interrupt(SIGINT);
    loop.run();
    interrupt(SIGTERM);
    return interrupted_by([&] { loop.run(); });
  });
  BOOST_TEST(status == SIGTERM);
}

BOOST_AUTO_TEST_CASE(a_guard_can_be_moved_and_replaced) {
  par::Reactor loop;
  par::Interrupts none;
  none.release();
  par::Interrupts first = par::interruptible();
  none = std::move(first);
  interrupt();
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGINT);
  none = par::Interrupts();
  none = par::interruptible();  // catches the signals again
  interrupt();
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGINT);
}

BOOST_AUTO_TEST_CASE(a_guard_may_end_in_a_callback_and_after_its_loop) {
  par::Interrupts guard;
  {
    par::Reactor loop;
    guard = par::interruptible(loop);
    const par::Timer now = loop.after(0ns, [&] { guard.release(); });
    loop.run();
    guard = par::interruptible(loop);
    loop.run();
  }
  par::Reactor other;
  interrupt();
  BOOST_TEST(interrupted_by([&] { other.run(); }) == SIGINT);
}

// ---- run(body) ----

BOOST_AUTO_TEST_CASE(run_gives_the_exit_status_of_its_body) {
  BOOST_TEST(par::interruptible().run([] { return 3; }) == 3);
  BOOST_TEST(par::interruptible().run([] {}) == 0);
  BOOST_CHECK_THROW(par::interruptible().run([] { throw std::runtime_error("of the body"); }),
                    std::runtime_error);
  BOOST_TEST(par::interruptible().run([] { throw par::Interrupted(SIGHUP); }) == 128 + SIGHUP);
  // It came after the last run of a loop.
  BOOST_TEST(par::interruptible().run([] { interrupt(SIGTERM); }) == 143);
}

BOOST_AUTO_TEST_CASE(an_interrupted_says_which_signal_it_was) {
  const par::Interrupted interrupted(SIGTERM);
  BOOST_TEST(interrupted.what() == std::string("interrupted by SIGTERM"));
  BOOST_TEST(interrupted.signal() == SIGTERM);
  BOOST_TEST(interrupted.exit_status() == 143);
}

// ---- other loops ----

BOOST_AUTO_TEST_CASE(a_given_reactor_shows_the_signal_to_another_loop) {
  par::Reactor loop;
  for (const bool mirror_first : {false, true}) {  // in the second round there is one
    const par::Interrupts guard = par::interruptible(loop);
    pollfd one{loop.fd(), POLLIN, 0};
    BOOST_TEST(::poll(&one, 1, 0) == 0, mirror_first);
    interrupt();
    BOOST_TEST(testing::is_ready(loop.fd()));
    BOOST_TEST(interrupted_by([&] { loop.poll(); }) == SIGINT);
    loop.poll();
    BOOST_TEST(::poll(&one, 1, 0) == 0, mirror_first);
  }
}

BOOST_AUTO_TEST_CASE(a_base_that_the_program_dispatches_tells_on_exception) {
  const Base base(::event_base_new());
  par::Reactor loop(base.get());
  const par::Interrupts guard = par::interruptible(loop);
  int signum = 0;
  loop.on_exception([&](std::exception_ptr thrown) {
    signum = interrupted_by([&] { std::rethrow_exception(thrown); });
    ::event_base_loopbreak(base.get());
  });
  interrupt();
  ::event_base_dispatch(base.get());
  BOOST_TEST(signum == SIGINT);
  ::event_base_loop(base.get(), EVLOOP_NONBLOCK);  // it is thrown once
}

BOOST_AUTO_TEST_CASE(the_reactor_that_runs_throws_if_several_share_a_base) {
  const Base base(::event_base_new());
  par::Reactor given(base.get());
  par::Reactor other(base.get());
  const par::Interrupts guard = par::interruptible(given);
  bool told = false;
  given.on_exception([&](const std::exception_ptr&) { told = true; });
  const par::Timer late = other.after(1h, [] {});
  interrupt();
  BOOST_TEST(interrupted_by([&] { other.run(); }) == SIGINT);
  BOOST_TEST(!told);
}

BOOST_AUTO_TEST_CASE(a_loop_inside_of_a_callback_is_interrupted) {
  par::Reactor outer;
  par::Reactor inner;
  const par::Interrupts guard = par::interruptible(outer);
  const par::Timer late = inner.after(1h, [] {});
  int signum = 0;
  const par::Timer now = outer.after(0ns, [&] {
    interrupt();
    signum = interrupted_by([&] { inner.run(); });
  });
  outer.run();
  BOOST_TEST(signum == SIGINT);
}

BOOST_AUTO_TEST_CASE(a_loop_of_another_thread_is_not_interrupted) {
  const par::Interrupts guard = par::interruptible();
  interrupt();
  int there = -1;
  std::thread([&] {
    par::Reactor loop;
    const par::Timer soon = loop.after(1ms, [] {});
    there = interrupted_by([&] { loop.run(); });
  }).join();
  BOOST_TEST(there == 0);
  par::Reactor loop;
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGINT);
}

BOOST_AUTO_TEST_CASE(a_thread_may_take_the_signal_for_the_loop) {
  par::Reactor loop;
  const par::Interrupts guard = par::interruptible();
  std::thread thread([hold = loop.hold()] { ::raise(SIGINT); });
  const par::Timer late = loop.after(1h, [] {});
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGINT);
  thread.join();
}

// ---- beside other handlers ----

BOOST_AUTO_TEST_CASE(a_watch_that_is_set_later_takes_its_signal) {
  par::Reactor loop;
  const par::Interrupts guard = par::interruptible(loop);
  int seen = 0;
  par::Watch watch = loop.on_signal(SIGTERM, [&] {
    ++seen;
    watch.cancel();
  });
  interrupt(SIGTERM);
  loop.run();
  BOOST_TEST(seen == 1);
  interrupt(SIGTERM);
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGTERM);
}

BOOST_AUTO_TEST_CASE(a_guard_among_watches_of_its_signals_leaves_the_default) {
  // Whichever of them ends last.
  for (const bool watch_first : {true, false}) {
    const int status = testing::elsewhere([&] {
      ::signal(SIGTERM, SIG_DFL);
      par::Reactor loop;
      par::Watch watch;
      par::Interrupts guard;
      if (watch_first) watch = loop.on_signal(SIGTERM, [] {});
      guard = par::interruptible();
      if (!watch_first) watch = loop.on_signal(SIGTERM, [] {});
      if (watch_first) {
        watch.cancel();
        guard.release();
      } else {
        guard.release();
        watch.cancel();
      }
      interrupt(SIGTERM);
      return 1;
    });
    BOOST_TEST(status == died_of(SIGTERM));
  }
}

// ---- misuse ----

BOOST_AUTO_TEST_CASE(there_is_one_guard_at_a_time) {
  par::Reactor loop;
  {
    const par::Interrupts guard = par::interruptible();
    BOOST_TEST(has(misuse_of([] { static_cast<void>(par::interruptible()); }), "twice"));
    BOOST_TEST(has(misuse_of([&] { static_cast<void>(par::interruptible(loop)); }), "twice"));
    interrupt();
    BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGINT);
  }
  const par::Interrupts next = par::interruptible(loop);
}

BOOST_AUTO_TEST_CASE(a_child_is_not_interruptible) {
  testing::allow_descriptors(1);
  par::Snapshot snapshot;
  par::Reactor loop;
  auto f = par::run(
      loop,
      [] {
        return misuse_of([] { static_cast<void>(par::interruptible()); }) + " / " +
               misuse_of([] { static_cast<void>(par::interruptible(par::this_reactor())); });
      },
      testing::in(snapshot));
  const std::string text = f.wait().value();
  BOOST_TEST(has(text, "in a child"));
  BOOST_TEST(has(text.substr(text.find(" / ")), "in a child"));
}

// ---- processes that the program forks ----

BOOST_AUTO_TEST_CASE(a_forked_copy_has_the_former_dispositions) {
  par::Reactor loop;
  const par::Interrupts guard = par::interruptible(loop);
  const int killed = testing::elsewhere([] {
    ::signal(SIGTERM, SIG_DFL);
    interrupt(SIGTERM);
    return 1;
  });
  BOOST_TEST(killed == died_of(SIGTERM));
  const int own = testing::elsewhere([] {
    const par::Interrupts of_copy = par::interruptible();
    par::Reactor own_loop;
    interrupt();
    return interrupted_by([&] { own_loop.run(); });
  });
  BOOST_TEST(own == SIGINT);
  // What came before the fork is for the program alone.
  interrupt();
  const int quiet = testing::elsewhere([&] {
    par::Reactor own_loop;
    return interrupted_by([&] { own_loop.run(); });
  });
  BOOST_TEST(quiet == 0);
  BOOST_TEST(interrupted_by([&] { loop.run(); }) == SIGINT);
}

// ---- the terminal ----

namespace {

constexpr unsigned short columns = 60;

// The lines of a terminal that understands \r and \n, and continues a long line in the next one.
std::vector<std::string> screen_of(const std::string& output) {
  std::vector<std::string> lines{""};
  std::size_t column = 0;
  for (const char c : output) {
    if (c == '\r') {
      column = 0;
    } else if (c == '\n') {
      lines.emplace_back();
      column = 0;
    } else {
      if (column == columns) {
        lines.emplace_back();
        column = 0;
      }
      lines.back().resize(std::max(lines.back().size(), column + 1), ' ');
      lines.back()[column++] = c;
    }
  }
  for (std::string& line : lines) line.resize(line.find_last_not_of(' ') + 1);
  return lines;
}

// A tool at its terminal, whose key is pressed while it shows a bar: what is on the screen then.
template <class F>
std::vector<std::string> screen_after_key(F tool) {
  const Terminal terminal;
  terminal.set_width(columns);
  const Tube born;
  births = born.fds[1];
  Program program(
      [&] {
        ::setenv("TERM", "xterm", 1);
        for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) ::dup2(STDIN_FILENO, fd);
        return tool();
      },
      terminal.name());
  pid_t child = 0;
  BOOST_REQUIRE(born.take(child));
  std::string output = terminal.read_until("1/2");
  BOOST_TEST(terminal.press(ctrl_c));
  output += terminal.read_until("");
  BOOST_TEST(program.end() == 130);
  BOOST_TEST(gone(child));
  BOOST_TEST(has(output, "^C"));
  return screen_of(output);
}

// The first item is answered, and shown, before the second one hangs.
int first_only(int x) {
  return x == 0 ? 0 : hang(x);
}

par::PoolOptions one_worker() {
  par::PoolOptions options;
  options.workers = 1;
  return options;
}

par::MapOptions shown() {
  par::MapOptions options;
  options.show = par::ProgressForm::automatic;
  options.chunk = 1;
  options.progress_every = 0ms;
  return options;
}

void check_screen(const std::vector<std::string>& screen) {
  BOOST_REQUIRE(screen.size() == 3u);
  BOOST_TEST(has(screen[0], "50%  1/2"), screen[0]);
  BOOST_TEST(!has(screen[0], "^C"), screen[0]);
  BOOST_TEST(screen[1] == "stopped");
  BOOST_TEST(screen[2].empty());
}

int say_stopped(int status) {
  std::printf("stopped\n");
  std::fflush(stdout);
  return status;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_map_leaves_the_line_of_its_bar_clean) {
  check_screen(screen_after_key([] {
    return say_stopped(par::interruptible().run([] {
      static_cast<void>(par::map(std::vector<int>{0, 1}, first_only, one_worker(), shown()));
    }));
  }));
}

// The pool and its loop go on.
BOOST_AUTO_TEST_CASE(a_map_of_a_pool_leaves_its_line_before_the_exception_arrives) {
  check_screen(screen_after_key([] {
    par::init();
    const par::Interrupts guard = par::interruptible();
    par::Reactor loop;
    auto pool = par::pool(loop, first_only, one_worker());
    try {
      static_cast<void>(pool.wait_map(std::vector<int>{0, 1}, shown()));
    } catch (const par::Interrupted& interrupted) {
      return say_stopped(interrupted.exit_status());
    }
    return 1;
  }));
}

BOOST_AUTO_TEST_CASE(a_bar_of_the_program_leaves_its_line_and_children_in_its_group_are_quiet) {
  check_screen(screen_after_key([] {
    par::init();
    return say_stopped(par::interruptible().run([] {
      par::ProgressMeter meter(2);
      par::ProgressBar bar;
      meter.add(1);
      bar.show(meter.sample());
      par::Reactor loop;
      par::Options options;
      options.process_group = par::ProcessGroup::parent;
      options.out = options.err = par::Stdio::inherit();
      auto f = par::run(loop, hang, options);
      for (;;) static_cast<void>(f.wait(1));
    }));
  }));
}
