// kill.cpp - whoever is killed: no process is left, and no call is left unanswered.
#include "elsewhere.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace par = evparallel;

namespace {

void spin() {
  for (volatile bool forever = true; forever;) {}
}

// A program in the middle of its work: idle children, one that computes for ever, one that is
// asleep in a task, one in the middle of a big message.  Says on `ready` who takes part, then waits
// to be killed.
[[noreturn]] void program(int ready, bool stop_snapshot) {
  par::init();
  par::Reactor loop;
  std::vector<par::Remote<int, int>> remotes;
  std::vector<par::Process<int, int>> processes;
  std::vector<pid_t> pids{par::default_snapshot().pid()};
  const auto tell = [&] {
    if (pids.size() < 6) return;
    if (stop_snapshot) ::kill(pids[0], SIGSTOP);
    if (::write(ready, pids.data(), pids.size() * sizeof(pid_t)) < 0) ::_exit(1);
  };
  const auto started = [&](pid_t pid) {
    pids.push_back(pid);
    tell();
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
    pipe.on_end([] { spin(); });  // takes the end of its parent badly
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

BOOST_AUTO_TEST_CASE(killing_the_parent_leaves_nobody, *testing::guarantee("5.1")) {
  const Cast cast = start_program();
  ::kill(cast.parent, SIGKILL);
  BOOST_TEST(all_gone(cast.far));
}

BOOST_AUTO_TEST_CASE(killing_the_parent_of_a_stopped_snapshot_leaves_nobody) {
  const Cast cast = start_program(true);
  ::kill(cast.parent, SIGKILL);
  BOOST_TEST(all_gone(cast.far));
}

BOOST_AUTO_TEST_CASE(killing_the_snapshot_and_the_parent_leaves_nobody) {
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

BOOST_AUTO_TEST_CASE(a_parent_that_is_killed_at_once_leaves_nobody, *testing::guarantee("5.1")) {
  // Requests may still be on their way: they must not be served any more, or their children must
  // end.
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
    BOOST_TEST(all_gone({snapshot}));  // and orphans are looked for after each case
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

BOOST_AUTO_TEST_CASE(children_have_default_signals_whatever_the_program_did) {
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
        // One of the library's own stands for the default there: terminal.cpp.
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

BOOST_AUTO_TEST_CASE(a_program_that_ignores_or_waits_for_its_children_hears_of_ours_all_the_same,
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

BOOST_AUTO_TEST_CASE(children_of_the_program_are_left_to_it, *testing::guarantee("5.5")) {
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

BOOST_AUTO_TEST_CASE(every_call_is_answered_once_while_children_are_killed_all_the_time) {
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    auto f = par::run(loop, [](int x) { return x; });
    constexpr int calls = 5000;
    std::vector<int> heard(calls);
    int right = 0;
    int made = 0;
    const auto call = [&](auto&& self) -> void {
      if (made == calls) return;
      const int x = made++;
      f(x, [&, self, x](par::Result<int> r) {
        ++heard[static_cast<std::size_t>(x)];
        right += r && *r == x;
        if (x % 50 == 0 && f.pid() > 0) ::kill(f.pid(), SIGKILL);
        self(self);
      });
    };
    for (int i = 0; i < 10; ++i) call(call);
    loop.run();
    for (const int times : heard)
      if (times != 1) return 1;
    return right > 0 ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}
