// ends.cpp - the end of a child, and its reports: to on_exit, and to each call; and the killing of any process.
#include "elsewhere.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>

namespace par = evparallel;
using std::chrono::milliseconds;

namespace {

struct Reported {
  std::optional<par::ExitStatus> by_exit;  // of a process
  std::optional<par::Error> by_call;       // of a call
  std::optional<par::Error> by_queued;     // of a call behind it
};

// The same end in a process and in a call.
template <class End>
Reported report(par::Snapshot& snapshot, End end, par::Options options = {}) {
  options.snapshot = &snapshot;
  par::Reactor loop;
  Reported reported;
  auto p = par::process(
      loop, [end](par::Pipe<int, int>) { end(); }, options);
  p.on_error([](const par::Error&) {});
  p.on_exit([&](const par::ExitStatus& s) { reported.by_exit = s; });
  auto f = par::run(
      loop,
      [end](int x) {
        end();
        return x;
      },
      options);
  // Calls of one callback are sent together: the second one is sent before the first can end the child.
  loop.post([&] {
    f(1, [&](par::Result<int> r) { reported.by_call = r.error(); });
    f(2, [&](par::Result<int> r) { reported.by_queued = r.error(); });
  });
  loop.run();
  if (!reported.by_exit || !reported.by_call || !reported.by_queued || !reported.by_call->exit())
    throw std::runtime_error("not everything was told");
  return reported;
}

void check(const Reported& reported, par::Cause cause, int signum, par::Errc code,
           const char* words) {
  for (const par::ExitStatus& status :
       {*reported.by_exit, *reported.by_call->exit(), *reported.by_queued->exit()}) {
    BOOST_TEST(status.pid > 0);
    BOOST_TEST(par::to_string(status.cause) == std::string(par::to_string(cause)));
    BOOST_TEST(status.signalled() == (signum != 0));
    if (signum) BOOST_TEST(status.signal() == signum);
    BOOST_TEST(status.usage.max_rss > 0);
    BOOST_TEST(status.usage.minor_faults > 0);
    const std::string text = status.describe();
    BOOST_TEST(text.find("child " + std::to_string(status.pid)) == 0, text);
    BOOST_TEST(text.find(words) != std::string::npos, text);
  }
  BOOST_TEST((reported.by_call->code() == code));
  BOOST_TEST((reported.by_call->delivery() == par::Delivery::started));
  BOOST_TEST((reported.by_queued->code() == code));
  BOOST_TEST((reported.by_queued->delivery() == par::Delivery::sent));
}

void spin() {
  for (volatile bool forever = true; forever;) {}
}

}  // namespace

BOOST_AUTO_TEST_CASE(exits_are_reported_with_their_status, *testing::guarantee("4.1")) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  using par::Cause;
  using par::Errc;
  check(report(snapshot, [] { std::exit(7); }), Cause::error, 0, Errc::child_exited, "status 7");
  check(report(snapshot, [] { ::_exit(8); }), Cause::error, 0, Errc::child_exited, "status 8");
  check(report(snapshot, [] { std::exit(0); }), Cause::normal, 0, Errc::child_exited,
        "ended normally");
}

BOOST_AUTO_TEST_CASE(crashes_are_reported_with_their_signal, *testing::guarantee("4.1")) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const auto is_crash = [&](auto end, int signum, const char* words) {
    check(report(snapshot, end), par::Cause::crash, signum, par::Errc::child_killed, words);
  };
  is_crash([] { ::raise(SIGSEGV); }, SIGSEGV, "SIGSEGV");
  is_crash([] { std::abort(); }, SIGABRT, "SIGABRT");
  is_crash([] { std::terminate(); }, SIGABRT, "SIGABRT");
  is_crash([] { ::raise(SIGTERM); }, SIGTERM, "SIGTERM");
  is_crash([] { ::raise(SIGKILL); }, SIGKILL, "sent from outside, perhaps because memory ran out");
}

BOOST_AUTO_TEST_CASE(core_dumped_reports_whether_a_core_was_written) {
  if (testing::skipped_without_cores()) return;
  const testing::Folder folder;
  const int status = testing::elsewhere([&] {
    if (::chdir(folder.path().c_str()) != 0) return 1;
    testing::write_cores();
    par::Snapshot snapshot;
    par::Reactor loop;
    par::Options options;
    options.snapshot = &snapshot;
    auto p = par::process(
        loop, [](par::Pipe<int, int>) { ::raise(SIGSEGV); }, options);
    p.on_error([](const par::Error&) {});
    bool dumped = false;
    std::string text;
    p.on_exit([&](const par::ExitStatus& s) {
      dumped = s.core_dumped();
      text = s.describe();
    });
    loop.run();
    return dumped && text.find("(core dumped)") != std::string::npos ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(the_limit_of_processor_time_applies) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Options options;
  options.limits.cpu = std::chrono::seconds(1);
  const Reported reported = report(snapshot, spin, options);
  check(reported, par::Cause::cpu_limit, SIGXCPU, par::Errc::child_killed, "processor time");
  BOOST_TEST((reported.by_exit->usage.user_time.count() > 0));
}

BOOST_AUTO_TEST_CASE(the_memory_limit_applies) {
  if (testing::sanitized) return testing::skip("a sanitizer's shadow needs all the address space");
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  options.limits.memory = std::size_t{64} << 20;
  auto f = par::run(
      loop,
      [](std::size_t size) {
        const std::string text(size, 'x');
        return text.size();
      },
      options);
  std::vector<std::string> received;
  for (const std::size_t megabytes : {std::size_t{16}, std::size_t{256}, std::size_t{16}})
    f(megabytes << 20, [&](par::Result<std::size_t> r) {
      received.push_back(r ? std::to_string(*r >> 20) : r.error().remote_type());
    });
  loop.run();
  BOOST_TEST(received == (std::vector<std::string>{"16", "std::bad_alloc", "16"}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_child_may_have_a_lower_priority) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  options.nice = 3;
  auto f = par::run(
      loop, [] { return ::getpriority(PRIO_PROCESS, 0); }, options);
  int nice = 0;
  f([&](par::Result<int> r) { nice = r.value(); });
  loop.run();
  BOOST_TEST(nice == std::min(::getpriority(PRIO_PROCESS, 0) + 3, 19));
}

BOOST_AUTO_TEST_CASE(a_stopped_child_can_be_killed_by_its_handle) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto p = par::process(
      loop, [](par::Pipe<int, int>) { ::raise(SIGSTOP); }, options);
  p.on_error([](const par::Error&) {});
  std::optional<par::ExitStatus> status;
  p.on_exit([&](const par::ExitStatus& s) { status = s; });
  p.kill(SIGKILL);
  loop.run();
  BOOST_REQUIRE(status.has_value());
  BOOST_TEST((status->cause == par::Cause::killed));
  BOOST_TEST(status->describe().find("SIGKILL, sent by its handle") != std::string::npos);
}

// ---- exceptions ----

BOOST_AUTO_TEST_CASE(nested_exceptions_are_reported_with_their_types) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto f = par::run(
      loop,
      [](int depth) -> int {
        const std::function<void(int)> fail = [&](int left) {
          if (left == 0) throw std::out_of_range("the innermost");
          try {
            fail(left - 1);
          } catch (...) {
            std::throw_with_nested(std::runtime_error("level " + std::to_string(left)));
          }
        };
        if (depth < 0) throw 42;
        fail(depth);
        return 0;
      },
      options);
  std::vector<par::Error> errors;
  for (const int depth : {0, 2, -1})
    f(depth, [&](par::Result<int> r) { errors.push_back(r.error()); });
  loop.run();
  BOOST_REQUIRE(errors.size() == 3u);
  for (const par::Error& error : errors) {
    BOOST_TEST((error.code() == par::Errc::remote_exception));
    BOOST_TEST((error.delivery() == par::Delivery::started));
    BOOST_TEST(!error.exit().has_value());
  }
  BOOST_TEST(errors[0].remote_type() == "std::out_of_range");
  BOOST_TEST(errors[1].remote_type() == "std::runtime_error");
  BOOST_TEST(std::string(errors[1].what()) ==
             "std::runtime_error: level 2; caused by std::runtime_error: level 1; caused by "
             "std::out_of_range: the innermost");
  BOOST_TEST(errors[2].remote_type() == "int");
}

// ---- killing any process: no process is left, and every call is answered ----

namespace {

// A program in the middle of its work: idle children, one that computes for ever, one that sleeps in a task, one in the
// middle of a big message.  Writes the pids of its processes to `ready`, then waits to be killed.
[[noreturn]] void program(int ready, bool stop_snapshot) {
  par::init();
  par::Reactor loop;
  std::vector<par::Remote<int(int)>> remotes;
  std::vector<par::Process<int, int>> processes;
  std::vector<pid_t> pids{par::default_snapshot().pid()};
  const auto report = [&] {
    if (pids.size() < 6) return;
    if (stop_snapshot) ::kill(pids[0], SIGSTOP);
    if (::write(ready, pids.data(), pids.size() * sizeof(pid_t)) < 0) ::_exit(1);
  };
  const auto started = [&](pid_t pid) {
    pids.push_back(pid);
    report();
  };
  for (int i = 0; i < 2; ++i) {
    remotes.push_back(par::run(loop, [](int x) {
      if (x == 1) spin();
      return static_cast<int>(::getpid());
    }));
    remotes.back()(0, [&, i](par::Result<int> r) {
      started(r.value());
      if (i == 1) remotes[1](1, [](par::Result<int>) {});
    });
  }
  processes.push_back(par::process(loop, [](par::Pipe<int, int>) {}));
  processes.push_back(par::process(loop, [](par::Pipe<int, int>) {
    ::signal(SIGTERM, SIG_IGN);
    for (;;) ::pause();
  }));
  processes.push_back(par::process(loop, [](par::Pipe<int, int> pipe) {
    pipe.on_end([] { spin(); });  // reacts to the end of its parent by spinning
  }));
  for (auto& p : processes) p.on_start(started);
  loop.run();
  ::_exit(1);
}

struct Cast {
  pid_t parent = 0;
  std::vector<pid_t> far;  // the snapshot first
};

Cast start_program(bool stop_snapshot = false) {
  int ready[2];
  if (::pipe(ready) != 0) throw std::runtime_error("pipe");
  Cast cast;
  cast.parent = ::fork();
  if (cast.parent == 0) program(ready[1], stop_snapshot);
  cast.far.resize(6);
  const auto size = static_cast<ssize_t>(cast.far.size() * sizeof(pid_t));
  const bool all = ::read(ready[0], cast.far.data(), static_cast<std::size_t>(size)) == size;
  ::close(ready[0]);
  ::close(ready[1]);
  if (!all) throw std::runtime_error("the program did not start");
  return cast;
}

bool all_gone(const std::vector<pid_t>& pids) {
  return testing::eventually([&] {
    return std::none_of(pids.begin(), pids.end(),
                        [](pid_t pid) { return testing::process_exists(pid); });
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(killing_the_parent_leaves_no_process, *testing::guarantee("5.1")) {
  const Cast cast = start_program();
  ::kill(cast.parent, SIGKILL);
  BOOST_TEST(all_gone(cast.far));
}

BOOST_AUTO_TEST_CASE(killing_the_parent_of_a_stopped_snapshot_leaves_no_process) {
  const Cast cast = start_program(true);
  ::kill(cast.parent, SIGKILL);
  BOOST_TEST(all_gone(cast.far));
}

BOOST_AUTO_TEST_CASE(killing_the_snapshot_and_the_parent_leaves_no_process) {
  for (const bool snapshot_first : {true, false}) {
    const Cast cast = start_program();
    ::kill(snapshot_first ? cast.far[0] : cast.parent, SIGKILL);
    ::kill(snapshot_first ? cast.parent : cast.far[0], SIGKILL);
    BOOST_TEST(all_gone(cast.far));
  }
}

BOOST_AUTO_TEST_CASE(killing_the_snapshot_ends_its_children, *testing::guarantee("5.3")) {
  const Cast cast = start_program();
  ::kill(cast.far[0], SIGKILL);
  BOOST_TEST(all_gone(cast.far));
  ::kill(cast.parent, SIGKILL);
}

BOOST_AUTO_TEST_CASE(a_parent_that_is_killed_at_once_leaves_no_process,
                     *testing::guarantee("5.1")) {
  // Requests may still be under way: they must not be served any more, or their children must end.
  for (int i = 0; i < 20; ++i) {
    int said[2];
    BOOST_REQUIRE(::pipe(said) == 0);
    const pid_t parent = ::fork();
    if (parent == 0) {
      par::init();
      const pid_t snapshot = par::default_snapshot().pid();
      par::Reactor loop;
      std::vector<par::Process<int, int>> all;
      for (int k = 0; k < 20; ++k)
        all.push_back(par::process(loop, [](par::Pipe<int, int>) { spin(); }));
      if (::write(said[1], &snapshot, sizeof snapshot) < 0) ::_exit(1);
      ::kill(::getpid(), SIGKILL);
    }
    ::close(said[1]);
    pid_t snapshot = 0;
    BOOST_REQUIRE(::read(said[0], &snapshot, sizeof snapshot) == sizeof snapshot);
    ::close(said[0]);
    BOOST_TEST(all_gone({snapshot}));  // and the harness looks for orphans after each case
  }
}

BOOST_AUTO_TEST_CASE(signals_of_a_terminal_or_init_do_not_end_a_snapshot) {
  const int status = testing::elsewhere([] {
    par::init();
    const pid_t snapshot = par::default_snapshot().pid();
    for (const int signum : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP, SIGCONT})
      ::kill(snapshot, signum);
    par::Reactor loop;
    int answer = 0;
    auto f = par::run(loop, [](int x) { return x; });
    f(5, [&](par::Result<int> r) { answer = r.value(); });
    loop.run();
    return answer == 5 ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(children_have_default_signals_whatever_the_program_set) {
  const int status = testing::elsewhere([] {
    ::signal(SIGTERM, SIG_IGN);
    ::signal(SIGUSR1, [](int) { ::_exit(77); });
    ::signal(SIGCHLD, SIG_IGN);
    sigset_t set;
    sigfillset(&set);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    par::init();
    par::Reactor loop;
    auto f = par::run(loop, [] {
      for (int signum = 1; signum < 32; ++signum) {
        struct sigaction action {};
        ::sigaction(signum, nullptr, &action);
        // The library has a handler of its own for SIGTERM: see terminal.cpp.
        const bool right =
            signum == SIGTERM ? action.sa_handler != SIG_IGN : action.sa_handler == SIG_DFL;
        if (!right) return signum;
      }
      sigset_t mask;
      ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
      return sigisemptyset(&mask) ? 0 : 99;
    });
    int answer = -1;
    f([&](par::Result<int> r) { answer = r.value(); });
    loop.run();
    return answer;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_program_that_ignores_or_reaps_its_children_still_gets_exit_reports,
                     *testing::guarantee("5.5")) {
  const int status = testing::elsewhere([] {
    ::signal(SIGCHLD, SIG_IGN);
    par::init();
    par::Reactor loop;
    auto p = par::process(loop, [](par::Pipe<int, int>) { ::_exit(7); });
    int code = 0;
    p.on_exit([&](const par::ExitStatus& s) { code = s.code(); });
    loop.run();
    return code == 7 ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(children_of_the_program_are_left_to_the_program, *testing::guarantee("5.5")) {
  const int status = testing::elsewhere([] {
    par::init();
    const pid_t own = ::fork();
    if (own == 0) ::_exit(9);
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(own), &info, WEXITED | WNOWAIT);  // it has ended
    {
      par::Snapshot another;
      par::Reactor loop;
      auto p = par::process(loop, [](par::Pipe<int, int>) { ::_exit(7); });
      par::Options options;
      options.snapshot = &another;
      auto f = par::run(
          loop, [] { return static_cast<int>(::getpid()); }, options);
      f([&](par::Result<int> r) {
        ::kill(r.value(), SIGKILL);
        ::kill(another.pid(), SIGKILL);
      });
      loop.run();
      f([](par::Result<int>) {});
      loop.run();
    }
    int how = 0;
    return ::waitpid(own, &how, WNOHANG) == own && WEXITSTATUS(how) == 9 ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(the_group_of_a_child_ends_with_it, *testing::guarantee("5.4")) {
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
      const pid_t grandchild = ::fork();
      if (grandchild == 0)
        for (;;) ::pause();
      pipe.send(static_cast<int>(grandchild));
      pipe.close();
    });
    pid_t grandchild = 0;
    p.on_message([&](int pid) { grandchild = pid; });
    p.close();
    loop.run();
    return grandchild > 0 &&
                   testing::eventually([&] { return !testing::process_exists(grandchild); })
               ? 0
               : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(every_call_is_answered_once_while_children_are_killed) {
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    auto f = par::run(loop, [](int x) { return x; });
    constexpr int calls = 5000;
    std::vector<int> received(calls);
    int right = 0;
    int made = 0;
    const auto call = [&](auto&& self) -> void {
      if (made == calls) return;
      const int x = made++;
      f(x, [&, self, x](par::Result<int> r) {
        ++received[static_cast<std::size_t>(x)];
        right += r && *r == x;
        if (x % 50 == 0 && f.pid() > 0) ::kill(f.pid(), SIGKILL);
        self(self);
      });
    };
    for (int i = 0; i < 10; ++i) call(call);
    loop.run();
    for (const int times : received)
      if (times != 1) return 1;
    return right > 0 ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}
