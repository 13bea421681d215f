// terminal.cpp - signals from outside: the keys of a terminal, and a service manager that stops all processes.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "program.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace par = evparallel;
using testing::ctrl_backslash;
using testing::ctrl_c;
using testing::gone;
using testing::loop_until;
using testing::Program;
using testing::Terminal;
using testing::Tube;
using namespace std::chrono_literals;

namespace {

par::Options in(par::Snapshot& snapshot, par::ProcessGroup group = par::ProcessGroup::own) {
  par::Options options;
  options.snapshot = &snapshot;
  options.process_group = group;
  return options;
}

void echo(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int x) { pipe.send(x); });
}

// The sender is neither the program nor one of its children.
void stranger_sends(pid_t pid, int signum) {
  const pid_t stranger = ::fork();
  if (stranger == 0) ::_exit(::kill(pid, signum) == 0 ? 0 : 1);
  int status = 0;
  ::waitpid(stranger, &status, 0);
  BOOST_TEST(status == 0);
}

}  // namespace

// ---- terminals ----

BOOST_AUTO_TEST_CASE(a_key_reaches_only_the_program_unless_a_child_shares_its_group) {
  for (const char key : {ctrl_c, ctrl_backslash}) {
    const int signum = key == ctrl_c ? SIGINT : SIGQUIT;
    const Terminal terminal;
    const Tube ready;
    Program program(
        [&] {
          par::Snapshot snapshot;
          par::Reactor loop;
          auto own = par::process(loop, echo, in(snapshot));
          auto shared = par::process(loop, echo, in(snapshot, par::ProcessGroup::parent));
          int echoes = 0;
          std::optional<par::ExitStatus> own_end;
          std::optional<par::ExitStatus> shared_end;
          own.on_message([&](int) { ++echoes; });
          own.on_exit([&](const par::ExitStatus& s) { own_end = s; });
          shared.on_message([&](int) { ++echoes; });
          shared.on_exit([&](const par::ExitStatus& s) { shared_end = s; });
          own.send(1);
          shared.send(1);
          bool received = false;
          par::Watch watch = loop.on_signal(signum, [&] { received = true; });
          if (!loop_until(loop, [&] { return echoes == 2; })) return 1;
          if (!ready.put('r')) return 2;
          if (!loop_until(loop, [&] { return received && shared_end; })) return 3;
          if (!shared_end->signalled() || shared_end->signal() != signum) return 4;
          own.send(2);
          if (!loop_until(loop, [&] { return echoes == 3; }) || own_end) return 5;
          own.close();
          return loop_until(loop, [&] { return own_end.has_value(); }) && snapshot.alive() ? 0 : 6;
        },
        terminal.name());
    char byte = 0;
    BOOST_TEST(ready.take(byte));
    BOOST_TEST(terminal.press(key));
    BOOST_TEST(program.end() == 0);
  }
}

BOOST_AUTO_TEST_CASE(a_child_reads_nothing_from_the_terminal_and_is_not_stopped) {
  const Terminal terminal;
  Program program(
      [] {
        if (!::isatty(STDIN_FILENO)) return 1;
        par::Snapshot snapshot;
        par::Reactor loop;
        int wrong = 2;
        for (const par::ProcessGroup group : {par::ProcessGroup::own, par::ProcessGroup::parent}) {
          auto f = par::run(
              loop,
              [] {
                char byte;
                return static_cast<int>(::read(STDIN_FILENO, &byte, 1));
              },
              in(snapshot, group));
          f([&](par::Result<int> r) { wrong -= r.value() == 0; });
          loop.run();
        }
        return wrong;
      },
      terminal.name());
  BOOST_TEST(program.end() == 0);
}

// ---- groups ----

BOOST_AUTO_TEST_CASE(a_child_has_the_group_that_its_options_name) {
  Program program([] {
    par::Snapshot snapshot;
    par::Reactor loop;
    const auto group_of_child = [] {
      return std::make_pair(static_cast<int>(::getpgrp()), static_cast<int>(::getpid()));
    };
    int wrong = 0;
    auto own = par::run(loop, group_of_child, in(snapshot));
    own([&](auto r) { wrong += r.value().first != r.value().second; });
    auto shared = par::run(loop, group_of_child, in(snapshot, par::ProcessGroup::parent));
    shared([&](auto r) { wrong += r.value().first != ::getpgrp(); });
    // The group of the program, at any depth.
    auto nested = par::run(
        loop,
        [](int expected) {
          par::Options options;
          options.process_group = par::ProcessGroup::parent;
          auto f = par::run(
              par::this_reactor(), [] { return static_cast<int>(::getpgrp()); }, options);
          bool right = false;
          f([&](par::Result<int> r) { right = r.value() == expected; });
          par::this_reactor().run();
          return right;
        },
        in(snapshot));
    nested(static_cast<int>(::getpgrp()), [&](par::Result<bool> r) { wrong += !r.value(); });
    loop.run();
    return wrong;
  });
  BOOST_TEST(program.end() == 0);
}

BOOST_AUTO_TEST_CASE(a_child_that_cannot_join_a_group_has_its_own) {
  const int status = testing::elsewhere([] {
    par::Snapshot snapshot;
    if (::setsid() < 0) return 1;  // a group of another session
    par::Reactor loop;
    auto f = par::run(
        loop, [] { return ::getpgrp() == ::getpid(); }, in(snapshot, par::ProcessGroup::parent));
    bool own = false;
    f([&](par::Result<bool> r) { own = r.value(); });
    loop.run();
    return own ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

// The end of a child ends the processes that it has started, and no other process of a group that is not its own.
BOOST_AUTO_TEST_CASE(the_end_of_a_child_does_not_end_the_group_of_the_program) {
  Program program([] {
    const pid_t bystander = ::fork();
    while (bystander == 0) ::pause();
    par::Snapshot snapshot;
    par::Reactor loop;
    const auto leave_behind = [](par::Pipe<int, int> pipe) {
      const int pid = ::fork();
      while (pid == 0) ::pause();
      pipe.send(pid);
    };
    using Ending = void (*)(par::Process<int, int>&);
    const Ending endings[] = {[](par::Process<int, int>& p) { p.close(); },
                              [](par::Process<int, int>& p) { p.kill(SIGKILL); },
                              [](par::Process<int, int>& p) { p.terminate(0ms); }};
    std::uint64_t count = 0;
    for (const Ending end : endings) {
      auto p = par::process(loop, leave_behind, in(snapshot, par::ProcessGroup::parent));
      pid_t left = 0;
      bool ended = false;
      p.on_message([&](int pid) {
        left = pid;
        end(p);
      });
      p.on_exit([&](const par::ExitStatus&) { ended = true; });
      if (!loop_until(loop, [&] { return ended; }) || left <= 0) return 1;
      ++count;
      if (!gone(left) || !loop_until(loop, [&] { return snapshot.orphans_killed() == count; }))
        return 2;
    }
    if (!testing::process_exists(bystander)) return 3;
    ::kill(bystander, SIGKILL);
    ::waitpid(bystander, nullptr, 0);
    return 0;
  });
  BOOST_TEST(program.end() == 0);
}

// ---- SIGTERM ----

BOOST_AUTO_TEST_CASE(its_program_snapshot_and_task_may_end_a_child_by_sigterm) {
  testing::allow_descriptors(1);
  par::Snapshot snapshot;
  par::Reactor loop;
  const auto end_of = [&](void (*task)(par::Pipe<int, int>), auto end) {
    auto p = par::process(loop, task, in(snapshot));
    std::optional<par::ExitStatus> status;
    p.on_start([&](pid_t) { end(p); });
    p.on_exit([&](const par::ExitStatus& s) { status = s; });
    p.send(1);
    loop.run();
    BOOST_REQUIRE(status.has_value());
    return *status;
  };
  using Child = par::Process<int, int>;
  const auto check = [&](const par::ExitStatus& status, par::Cause cause) {
    BOOST_TEST(status.signalled());
    BOOST_TEST(status.signal() == SIGTERM);
    BOOST_TEST(par::to_string(status.cause) == par::to_string(cause));
  };
  check(end_of(echo, [](Child& p) { p.kill(SIGTERM); }), par::Cause::killed);
  check(end_of(echo, [](Child& p) { p.terminate(60000ms); }), par::Cause::terminated);
  check(end_of(echo, [](Child& p) { ::kill(p.pid(), SIGTERM); }), par::Cause::crash);
  const auto by_itself = [](par::Pipe<int, int> pipe) {
    pipe.on_message([](int) { ::raise(SIGTERM); });
  };
  check(end_of(by_itself, [](Child&) {}), par::Cause::crash);
}

BOOST_AUTO_TEST_CASE(an_unrelated_process_does_not_end_a_child_by_sigterm) {
  testing::allow_descriptors(1);
  par::Snapshot snapshot;
  par::Reactor loop;
  auto p = par::process(loop, echo, in(snapshot));
  int echoes = 0;
  p.on_message([&](int) { ++echoes; });
  BOOST_TEST(loop_until(loop, [&] { return p.pid() != 0; }));
  stranger_sends(snapshot.pid(), SIGTERM);
  for (int i = 1; i <= 3; ++i) {
    stranger_sends(p.pid(), SIGTERM);
    p.send(i);
    BOOST_TEST(loop_until(loop, [&] { return echoes == i; }));
  }
  // The signalled child still works, and another signal has the default effect.
  std::optional<par::ExitStatus> status;
  p.on_exit([&](const par::ExitStatus& s) { status = s; });
  stranger_sends(p.pid(), SIGUSR1);
  loop.run();
  BOOST_REQUIRE(status.has_value());
  BOOST_TEST(status->signal() == SIGUSR1);
}

BOOST_AUTO_TEST_CASE(a_task_may_handle_sigterm_itself) {
  testing::allow_descriptors(1);
  par::Snapshot snapshot;
  par::Reactor loop;
  auto p = par::process(
      loop,
      [](par::Pipe<int, int> pipe) {
        static volatile sig_atomic_t received = 0;
        ::signal(SIGTERM, [](int) { received = 1; });
        pipe.on_message([pipe](int x) { pipe.send(received ? -x : x); });
      },
      in(snapshot));
  std::vector<int> answers;
  p.on_message([&](int x) { answers.push_back(x); });
  p.send(1);
  BOOST_TEST(loop_until(loop, [&] { return answers.size() == 1u && p.pid() != 0; }));
  stranger_sends(p.pid(), SIGTERM);
  p.send(2);
  BOOST_TEST(loop_until(loop, [&] { return answers.size() == 2u; }));
  BOOST_TEST(answers == (std::vector<int>{1, -2}), boost::test_tools::per_element());
  p.close();
  loop.run();
}

// A task may end the processes that it has forked.
BOOST_AUTO_TEST_CASE(a_task_may_end_its_own_processes_by_sigterm) {
  testing::allow_descriptors(1);
  par::Snapshot snapshot;
  par::Reactor loop;
  auto f = par::run(
      loop,
      [] {
        const pid_t pid = ::fork();
        while (pid == 0) ::pause();
        ::kill(pid, SIGTERM);
        int status = 0;
        ::waitpid(pid, &status, 0);
        return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
      },
      in(snapshot));
  int signum = 0;
  f([&](par::Result<int> r) { signum = r.value(); });
  loop.run();
  BOOST_TEST(signum == SIGTERM);
}

// ---- a service is stopped ----

namespace {

constexpr int workers = 3;

struct Service {
  Tube family;    // pids, when the calls are being executed
  Tube begun;     // a byte for each executed call
  Tube gate;      // a byte lets one of them return
  Tube draining;  // a byte when the program drains
};

// Two calls for each worker, one in its task and one waiting; an idle worker; a process with messages.
int serve(const Service& service) {
  par::SnapshotOptions two;
  two.replicas = 2;
  par::init(two);
  par::Reactor loop;
  const int begun = service.begun.fds[1];
  const int gate = service.gate.fds[0];
  const auto work = [begun, gate](int x) {
    char byte = 'b';
    if (::write(begun, &byte, 1) != 1 || ::read(gate, &byte, 1) != 1) return -1;
    return 2 * x;
  };
  std::vector<par::Remote<int(int)>> remotes;
  for (int i = 0; i < workers; ++i) remotes.push_back(par::run(loop, work));
  auto idle = par::run(loop, [](int x) { return x; });
  auto conversation = par::process(loop, echo);
  int right = 0;
  bool ended = false;
  conversation.on_message([&](int x) { right += x == 7; });
  conversation.on_exit([&](const par::ExitStatus& s) { ended = s.cause == par::Cause::normal; });
  par::Watch term = loop.on_signal(SIGTERM, [&] {
    conversation.send(7);
    conversation.close();
    for (auto& remote : remotes) remote.close();
    idle.close();
    term.cancel();
    service.draining.put('d');
  });
  const auto all_known = [&] {
    bool known = idle.pid() != 0 && conversation.pid() != 0;
    for (const auto& remote : remotes) known = known && remote.pid() != 0;
    return known;
  };
  if (!loop_until(loop, all_known)) return 1;
  for (int i = 0; i < workers; ++i)
    for (int x = 0; x < 2; ++x)
      remotes[static_cast<std::size_t>(i)](
          10 * i + x, [&right, i, x](par::Result<int> r) { right += r && *r == 2 * (10 * i + x); });
  for (const pid_t pid : par::default_snapshot().pids()) service.family.put(pid);
  service.family.put(idle.pid());
  service.family.put(conversation.pid());
  for (const auto& remote : remotes) service.family.put(remote.pid());
  loop.run();
  return ended && right == 2 * workers + 1 ? 0 : 2;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_signal_to_all_processes_lets_the_program_drain) {
  for (const bool program_first : {true, false}) {
    const Service service;
    Program program([&] { return serve(service); });
    std::vector<pid_t> family(2 + 2 + workers);
    for (pid_t& pid : family) BOOST_REQUIRE(service.family.take(pid));
    char byte = 0;
    for (int i = 0; i < workers; ++i) BOOST_REQUIRE(service.begun.take(byte));
    if (program_first) ::kill(program.pid(), SIGTERM);
    for (const pid_t pid : family) ::kill(pid, SIGTERM);
    if (!program_first) ::kill(program.pid(), SIGTERM);
    BOOST_REQUIRE(service.draining.take(byte));
    for (int i = 0; i < 2 * workers; ++i) BOOST_TEST(service.gate.put('g'));
    BOOST_TEST(program.end() == 0);
    for (const pid_t pid : family) BOOST_TEST(gone(pid));
  }
}
