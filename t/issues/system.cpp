// system.cpp - missing resources: closed standard descriptors, no /dev/null, a low limit of open files.  The library
// used the numbers of standard streams for its own descriptors, children read the standard input of the program, and a
// snapshot that could not wait spun, and outlived its program.
#include "elsewhere.hpp"
#include "process.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;

namespace {

constexpr int standard[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};

void close_standard() {
  for (const int fd : standard) ::close(fd);
}

bool standard_are_closed() {
  for (const int fd : standard)
    if (::fcntl(fd, F_GETFD) >= 0) return false;
  return true;
}

par::Fd open_file() {
  return par::Fd::dup(par::Fd(::open("/", O_RDONLY | O_CLOEXEC)).get());
}

}  // namespace

// ---- descriptors below 3 -------------------------------------------------------------------------

namespace {

int echo(int x) {
  return x;
}

// In a child that has closed its standard descriptors: the descriptors that it makes to wait, to ask for children, and
// to receive.
int nested_without_standard(int x) {
  close_standard();
  int answer = -1;
  auto inner = par::run(par::this_reactor(), echo);
  inner(x, [&](par::Result<int> result) { answer = result.value_or(-2); });
  par::this_reactor().run();
  return standard_are_closed() ? answer : -3;
}

int number_without_standard(par::Fd fd) {
  // It came before they were closed.
  close_standard();
  return fd.get();
}

par::Fd made_without_standard(int) {
  return open_file();
}

template <class Inc, class F, class Arg>
std::optional<Inc> called(par::Reactor& loop, F f, Arg&& argument,
                          const par::Options& options = {}) {
  std::optional<Inc> answer;
  auto remote = par::run(loop, f, options);
  remote(std::forward<Arg>(argument), [&](par::Result<Inc> result) {
    if (result.has_value()) answer = std::move(*result);
  });
  loop.run();
  return answer;
}

// Every operation that makes a descriptor in the program, after the standard descriptors were closed.
int use_without_standard() {
  par::init();
  close_standard();
  par::Reactor loop;
  if (called<int>(loop, echo, 1) != 1) return 1;
  std::printf("what is printed is lost\n");
  std::fflush(stdout);
  if (called<int>(loop, nested_without_standard, 2) != 2) return 2;
  std::printf("and this\n");
  std::fflush(stdout);
  if (called<int>(loop, number_without_standard, open_file()).value_or(-1) < 3) return 3;
  const std::optional<par::Fd> made = called<par::Fd>(loop, made_without_standard, 0);
  if (!made || made->get() < 3) return 4;
  const par::SharedBytes bytes = par::SharedBytes::copy_of("abc", 3);
  if (bytes.fd() < 3) return 5;
  std::string line;
  par::Options options;
  options.out = par::Stdio::capture();
  options.on_line = [&](const par::OutputLine& said) { line = said.text; };
  if (called<int>(
          loop, +[](int x) { return std::puts("said") >= 0 ? x : 0; }, 6, options) != 6 ||
      line != "said")
    return 6;
  par::Watch signals = loop.on_signal(SIGUSR1, [] {});
  signals.cancel();
  return standard_are_closed() ? 0 : 7;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_library_never_takes_the_number_of_a_standard_stream) {
  BOOST_TEST(testing::elsewhere(use_without_standard) == 0);
}

BOOST_AUTO_TEST_CASE(a_closed_input_does_not_become_the_answer_of_another_child) {
  BOOST_TEST(testing::elsewhere([] {
               par::init();
               ::close(STDIN_FILENO);
               par::Reactor loop;
               auto first = par::run(loop, echo);
               par::Options options;
               options.in = par::Stdio::inherit();
               try {
                 auto second = par::run(loop, echo, options);
               } catch (const std::logic_error&) {
                 int answer = 0;
                 first(3, [&](par::Result<int> result) { answer = result.value_or(-1); });
                 loop.run();
                 return answer == 3 ? 0 : 1;
               }
               return 2;
             }) == 0);
}

BOOST_AUTO_TEST_CASE(symbols_and_cpus_are_found_without_standard_streams) {
  BOOST_TEST(testing::elsewhere([] {
               par::init();
               close_standard();
               par::Reactor loop;
               par::Options options;
               options.backtrace = true;
               auto failing = par::run(
                   loop, +[](int) -> int { throw std::runtime_error("no"); }, options);
               bool failed = false;
               failing(1, [&](par::Result<int> result) {
                 failed =
                     !result.has_value() && result.error().code() == par::Errc::remote_exception;
               });
               loop.run();
               auto some = par::pool(loop, echo);  // as many as there are processors
               int sum = 0;
               for (int i = 1; i <= 4; ++i)
                 some.submit(i, [&](par::Result<int> r) { sum += r.value_or(-100); });
               loop.run();
               const bool listed = par::preflight().descriptors_known;
               return failed && sum == 10 && listed && standard_are_closed() ? 0 : 1;
             }) == 0);
}

// ---- no /dev/null --------------------------------------------------------------------------------

namespace {

constexpr int cannot_be_had = 98;

// Runs `f` in an empty root directory, with `text` at standard input.
template <class F>
int in_an_empty_root(const std::string& text, F f) {
  const testing::Folder folder;
  const int status = testing::elsewhere([&] {
    if (::geteuid() != 0 && ::unshare(CLONE_NEWUSER) != 0) return cannot_be_had;
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0 || ::dup2(ends[0], STDIN_FILENO) < 0) return 97;
    if (::write(ends[1], text.data(), text.size()) != static_cast<ssize_t>(text.size())) return 97;
    if (::chroot(folder.path().c_str()) != 0 || ::chdir("/") != 0) return cannot_be_had;
    return f();
  });
  if (status == cannot_be_had) testing::skip("no other root directory");
  return status == cannot_be_had ? 0 : status;
}

std::string what_is_read(int) {
  char text[16];
  const ssize_t size = ::read(STDIN_FILENO, text, sizeof text);
  return size < 0 ? "failed" : std::string(text, static_cast<std::size_t>(size));
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_child_without_a_null_device_does_not_read_the_input_of_the_program) {
  const int status = in_an_empty_root("secret", [] {
    par::init();
    par::Reactor loop;
    if (called<std::string>(loop, what_is_read, 0) != std::string()) return 1;
    par::Options options;
    options.in = par::Stdio::inherit();
    return called<std::string>(loop, what_is_read, 0, options) == std::string("secret") ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(output_to_a_missing_null_device_is_refused_by_name) {
  const int status = in_an_empty_root("", [] {
    par::init();
    par::Reactor loop;
    for (par::Stdio par::Options::*stream : {&par::Options::out, &par::Options::err}) {
      par::Options options;
      options.*stream = par::Stdio::null();
      auto remote = par::run(loop, echo, options);
      std::optional<par::Error> error;
      remote(1, [&](par::Result<int> result) {
        if (!result.has_value()) error = result.error();
      });
      loop.run();
      if (!error || error->code() != par::Errc::spawn_failed || error->os_error() != ENOENT)
        return 1;
      if (!std::strstr(error->what(), "/dev/null")) return 2;
    }
    return called<int>(loop, echo, 4) == 4 ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(closed_standard_descriptors_keep_their_numbers_without_a_null_device) {
  const int status = in_an_empty_root("", [] {
    close_standard();
    par::init();
    for (const int fd : standard)
      if (::fcntl(fd, F_GETFD) < 0 || ::write(fd, "x", 1) >= 0 || errno != EBADF) return 1;
    par::Reactor loop;
    return called<int>(loop, echo, 4) == 4 ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

// ---- a snapshot that cannot wait -----------------------------------------------------------------

namespace {

// The kernel refuses to wait for more descriptors than may be open.
bool lower_limit(pid_t pid, rlim_t to) {
  const rlimit limit{to, to};
  return ::prlimit(pid, RLIMIT_NOFILE, &limit, nullptr) == 0;
}

// The number of voluntary context switches of a process.
long sleeps_of(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  const std::string label = "voluntary_ctxt_switches:";
  for (std::string line; std::getline(status, line);)
    if (line.compare(0, label.size(), label) == 0) return std::stol(line.substr(label.size()));
  return -1;
}

// The snapshot has read the signal that ended its current wait: the next wait is refused.
bool has_woken(pid_t pid) {
  return testing::eventually([pid] {
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(status, line);)
      if (line.compare(0, 7, "ShdPnd:") == 0)
        return line.find_first_of("123456789abcdef", 7) == line.npos;
    return false;
  });
}

bool goes_to_sleep(pid_t pid) {
  const long before = sleeps_of(pid);
  return before >= 0 && testing::eventually([&] { return sleeps_of(pid) >= before + 3; });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_snapshot_that_cannot_wait_polls_and_reports_it_once) {
  int said[2];
  BOOST_REQUIRE(::pipe2(said, O_CLOEXEC | O_NONBLOCK) == 0);
  const int status = testing::elsewhere([&] {
    ::dup2(said[1], STDERR_FILENO);
    par::init();
    par::Reactor loop;
    auto before = par::run(loop, echo);
    int answer = 0;
    before(1, [&](par::Result<int> result) { answer = result.value_or(-1); });
    loop.run();
    if (answer != 1) return 1;
    const pid_t snapshot = par::default_snapshot().pid();
    if (!lower_limit(snapshot, 1)) return 2;
    ::kill(snapshot, SIGCONT);  // ends its current wait
    // The snapshot has no room for the socket of a child, but can report that.
    auto after = par::run(loop, echo);
    par::Errc code{};
    after(2, [&](par::Result<int> result) {
      if (!result.has_value()) code = result.error().code();
    });
    loop.run();
    if (code != par::Errc::spawn_failed) return 3;
    if (!goes_to_sleep(snapshot)) return 4;
    before(5, [&](par::Result<int> result) { answer = result.value_or(-1); });
    loop.run();
    return answer == 5 ? 0 : 5;
  });
  BOOST_TEST(status == 0);
  char text[4096] = {};
  const ssize_t size = ::read(said[0], text, sizeof text - 1);
  const std::string all(text, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  ::close(said[0]);
  ::close(said[1]);
  const std::size_t first = all.find("cannot wait");
  BOOST_TEST(first != all.npos);
  BOOST_TEST(all.find("cannot wait", first + 1) == all.npos);
}

BOOST_AUTO_TEST_CASE(a_snapshot_that_cannot_wait_ends_with_its_program) {
  int reported[2];
  BOOST_REQUIRE(::pipe2(reported, O_CLOEXEC) == 0);
  const pid_t program = ::fork();
  if (program == 0) {
    par::init();
    const pid_t snapshot = par::default_snapshot().pid();
    const bool lowered = lower_limit(snapshot, 1);
    ::kill(snapshot, SIGCONT);
    if (!lowered || !has_woken(snapshot) || ::write(reported[1], &snapshot, sizeof snapshot) < 0)
      ::_exit(1);
    for (;;) ::pause();
  }
  pid_t snapshot = 0;
  BOOST_TEST(::read(reported[0], &snapshot, sizeof snapshot) ==
             static_cast<ssize_t>(sizeof snapshot));
  ::close(reported[0]);
  ::close(reported[1]);
  ::kill(program, SIGKILL);
  ::waitpid(program, nullptr, 0);
  BOOST_TEST(testing::gone(snapshot));
}
