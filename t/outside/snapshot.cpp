// snapshot.cpp - taking snapshots, with the public interface.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

namespace par = evparallel;
using testing::error_of;
using testing::gone;
using testing::in;

namespace {}  // namespace

BOOST_AUTO_TEST_CASE(a_call_without_a_snapshot_is_a_clear_error) {
  par::Reactor loop;
  const auto error = error_of([&] { static_cast<void>(par::run(loop, [](int x) { return x; })); });
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::no_snapshot));
  BOOST_TEST(std::string(error->what()).find("init()") != std::string::npos);
  BOOST_CHECK_THROW(par::default_snapshot(), par::Error);
}

BOOST_AUTO_TEST_CASE(init_twice_is_misuse_and_a_child_knows_its_role) {
  const int status = testing::elsewhere([] {
    par::init();
    try {
      par::init();
      return 1;
    } catch (const std::logic_error&) {}
    if (par::in_child()) return 2;
    par::Reactor loop;
    bool there = false;
    auto f = par::run(loop, [] { return par::in_child(); });
    f([&](par::Result<bool> r) { there = r.value(); });
    loop.run();
    return there ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_snapshot_keeps_the_values_of_the_time_it_was_taken) {
  // The last ends of children are not awaited here: the next snapshot that is taken closes the
  // sockets of their snapshots.
  testing::allow_descriptors(2);
  static int value = 1;
  par::Snapshot first;
  value = 2;
  par::Snapshot second;
  value = 3;
  BOOST_TEST(first.pid() != second.pid());
  BOOST_TEST(first.alive());
  par::Reactor loop;
  auto f = par::run(
      loop, [] { return value; }, in(first));
  auto g = par::run(
      loop, [] { return value; }, in(second));
  int a = 0;
  int b = 0;
  f([&](par::Result<int> r) { a = r.value(); });
  g([&](par::Result<int> r) { b = r.value(); });
  loop.run();
  BOOST_TEST(a == 1);
  BOOST_TEST(b == 2);
}

BOOST_AUTO_TEST_CASE(a_snapshot_ends_with_its_handle_and_its_last_child) {
  testing::allow_descriptors(1);  // until the end of a child is known
  pid_t pid = 0;
  par::Remote<int(int)> f;
  std::optional<par::Reactor> loop;
  {
    par::Snapshot snapshot;
    pid = snapshot.pid();
    loop.emplace();
    f = par::run(
        *loop, [](int x) { return x + 1; }, in(snapshot));
  }
  // The child runs on, and so does the snapshot.
  int answer = 0;
  f(1, [&](par::Result<int> r) { answer = r.value(); });
  loop->run();
  BOOST_TEST(answer == 2);
  BOOST_TEST(testing::process_exists(pid));
  f.close();
  f = {};
  loop.reset();
  BOOST_TEST(gone(pid));
}

BOOST_AUTO_TEST_CASE(threads_and_event_loops_are_refused_by_name) {
  {
    std::thread other([] { ::pause(); });
    ::pthread_setname_np(other.native_handle(), "brewer");
    const auto error = error_of([] { par::Snapshot s; });
    ::pthread_kill(other.native_handle(), SIGCONT);  // without a handler it does not wake pause()
    ::pthread_cancel(other.native_handle());
    other.join();
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::refused));
    BOOST_TEST(std::string(error->what()).find("brewer") != std::string::npos);
  }
  {
    const int epoll = ::epoll_create1(0);
    const auto error = error_of([] { par::Snapshot s; });
    ::close(epoll);
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST(
        std::string(error->what()).find("descriptor " + std::to_string(epoll) + " (eventpoll)") !=
        std::string::npos);
  }
  {
    par::Reactor loop;
    const auto error = error_of([] { par::Snapshot s; });
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST(std::string(error->what()).find("Reactor") != std::string::npos);
  }
  // All of it is gone, so nothing stands in the way.
  par::Snapshot snapshot;
  BOOST_TEST(snapshot.alive());
}

namespace {

// The output on standard error while f runs.
template <class F>
std::string complaints_of(F f) {
  const int before = ::dup(STDERR_FILENO);
  std::FILE* const file = std::tmpfile();
  ::dup2(::fileno(file), STDERR_FILENO);
  f();
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  std::string text(4096, '\0');
  const ssize_t size = ::pread(::fileno(file), text.data(), text.size(), 0);
  std::fclose(file);
  text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  return text;
}

}  // namespace

BOOST_AUTO_TEST_CASE(preflight_warn_names_the_problem_and_continues) {
  testing::allow_descriptors(2);
  par::SnapshotOptions options;
  options.preflight = par::Preflight::warn;
  std::string text = complaints_of([&] {
    par::Snapshot snapshot(options);
    BOOST_TEST(snapshot.alive());
  });
  BOOST_TEST(text == "");
  const int epoll = ::epoll_create1(0);
  text = complaints_of([&] {
    par::Snapshot snapshot(options);
    BOOST_TEST(snapshot.alive());
  });
  BOOST_TEST(
      text ==
      "evparallel: descriptor " + std::to_string(epoll) +
          " (eventpoll) would be shared with the snapshot: take the snapshot before the event "
          "loop is created, or close the descriptor\n");
  ::close(epoll);
  par::Reactor loop;  // refused in all of them
  const auto error = error_of([&] { par::Snapshot s(options); });
  BOOST_TEST((error && error->code() == par::Errc::refused));
}

BOOST_AUTO_TEST_CASE(findings_that_are_only_reported_are_not_refused) {
  const auto before = ::signal(SIGUSR1, [](int) {});
  const itimerval armed{{0, 0}, {1000, 0}};
  ::setitimer(ITIMER_VIRTUAL, &armed, nullptr);
  const par::PreflightReport report = par::preflight();
  BOOST_TEST(!report.handlers.empty());
  BOOST_TEST(!report.timers.empty());
  BOOST_TEST(!report.descriptors.empty());
  const std::string text = complaints_of([&] {
    const par::Snapshot snapshot;
    BOOST_TEST(snapshot.alive());
  });
  BOOST_TEST(text == "");
  const itimerval none{};
  ::setitimer(ITIMER_VIRTUAL, &none, nullptr);
  ::signal(SIGUSR1, before);
}

BOOST_AUTO_TEST_CASE(preflight_off_checks_nothing) {
  const int epoll = ::epoll_create1(0);
  par::SnapshotOptions options;
  options.preflight = par::Preflight::off;
  par::Snapshot snapshot(options);
  ::close(epoll);
  BOOST_TEST(snapshot.alive());
}

BOOST_AUTO_TEST_CASE(a_child_has_the_descriptors_of_its_snapshot_and_none_of_the_library) {
  testing::allow_descriptors(2);
  { par::Snapshot closes_what_earlier_ones_left; }
  int opened[3];
  for (int& fd : opened) fd = ::open("/dev/null", O_RDONLY);
  const std::size_t before = testing::count_descriptors();
  par::Snapshot first;
  par::Snapshot second;
  par::Reactor loop;
  std::vector<par::Remote<int(int)>> others;
  for (int i = 0; i < 5; ++i)
    others.push_back(par::run(
        loop, [](int x) { return x; }, in(first)));
  for (auto& other : others) other(1, [](par::Result<int> r) { r.value(); });
  auto f = par::run(
      loop,
      [] {
        std::vector<std::string> targets;
        if (DIR* directory = ::opendir("/proc/self/fd")) {
          while (const dirent* entry = ::readdir(directory)) {
            char target[256] = {};
            if (::readlinkat(::dirfd(directory), entry->d_name, target, sizeof target - 1) > 0 &&
                std::atoi(entry->d_name) != ::dirfd(directory))
              targets.push_back(target);
          }
          ::closedir(directory);
        }
        return targets;
      },
      in(second));
  std::vector<std::string> targets;
  f([&](par::Result<std::vector<std::string>> r) { targets = r.value(); });
  loop.run();
  // The descriptors of the program, and two of the library: its own socket and the rendezvous
  // socket.
  BOOST_TEST(targets.size() == before + 2);
  BOOST_TEST(std::count_if(targets.begin(), targets.end(), [](const std::string& t) {
               return t.compare(0, 7, "socket:") == 0;
             }) >= 2);
  BOOST_TEST(std::count_if(targets.begin(), targets.end(), [](const std::string& t) {
               return t.find("anon_inode") != std::string::npos;
             }) == 0);
  for (const int fd : opened) ::close(fd);
}

BOOST_AUTO_TEST_CASE(closed_standard_descriptors_do_no_harm) {
  const int status = testing::elsewhere([] {
    ::close(0);
    ::close(2);
    par::init();
    par::Reactor loop;
    int answer = 0;
    auto f = par::run(loop, [](int x) { return x; });
    f(5, [&](par::Result<int> r) { answer = r.value(); });
    loop.run();
    return answer == 5 ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_program_that_daemonises_later_gets_the_reason) {
  const int status = testing::elsewhere([] {
    par::init();
    const pid_t pid = ::fork();  // as daemon() does
    if (pid > 0) {
      int inner = 0;
      ::waitpid(pid, &inner, 0);
      return WEXITSTATUS(inner);
    }
    par::Reactor loop;
    const auto error =
        error_of([&] { static_cast<void>(par::run(loop, [](int x) { return x; })); });
    const bool reported = error && error->code() == par::Errc::no_snapshot &&
                          std::string(error->what()).find("daemonises") != std::string::npos;
    ::_exit(reported ? 0 : 1);
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(two_reactors_use_a_snapshot_at_the_same_time) {
  testing::allow_descriptors(2);  // until the end of a child is known
  par::Snapshot snapshot;
  {
    par::Reactor one;
    auto f = par::run(
        one, [](int x) { return x; }, in(snapshot));
    par::Reactor two;
    auto g = par::run(
        two, [](int x) { return x; }, in(snapshot));
    BOOST_TEST(f.wait(1).value() == 1);
    BOOST_TEST(g.wait(2).value() == 2);
  }
  par::Reactor later;
  auto f = par::run(
      later, [](int x) { return x; }, in(snapshot));
  int answer = 0;
  f(3, [&](par::Result<int> r) { answer = r.value(); });
  later.run();
  BOOST_TEST(answer == 3);
}

BOOST_AUTO_TEST_CASE(a_lost_snapshot_fails_pending_and_later_calls) {
  par::Snapshot snapshot;
  par::Reactor loop;
  auto f = par::run(
      loop,
      [](int x) {
        for (;;) ::pause();
        return x;
      },
      in(snapshot));
  auto p = par::process(
      loop, [](par::Pipe<int, int>) {}, in(snapshot));
  std::vector<par::Errc> codes;
  std::optional<par::ExitStatus> status;
  f(1, [&](par::Result<int> r) { codes.push_back(r.error().code()); });
  p.on_start([&](pid_t) { ::kill(snapshot.pid(), SIGKILL); });
  p.on_exit([&](const par::ExitStatus& s) { status = s; });
  loop.run();
  BOOST_REQUIRE(status.has_value());
  BOOST_TEST((status->cause == par::Cause::snapshot_lost));
  BOOST_TEST(!status->exited());
  BOOST_TEST(!status->signalled());
  BOOST_REQUIRE(codes.size() == 1u);
  BOOST_TEST((codes[0] == par::Errc::snapshot_lost));
  BOOST_TEST(!snapshot.alive());
  f(2, [&](par::Result<int> r) { codes.push_back(r.error().code()); });
  loop.run();
  BOOST_REQUIRE(codes.size() == 2u);
  BOOST_TEST((codes[1] == par::Errc::snapshot_lost));
}
