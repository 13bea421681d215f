// fork.cpp - the surroundings of a fork: output, signals, groups, parents, and ends of children.
#include "private_names.hpp"
#include "process.hpp"
#include "testing.hpp"

#include "system/failpoint.hpp"
#include "system/fork.hpp"
#include "system/flush_streams.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

using namespace evparallel;
using testing::eventually;
using testing::state_of;

namespace {

// Runs f in a copy made by fork_clean; the result of f is the exit status.
template <class F>
Forked fork_into(F f) {
  return fork_clean([](void* argument) { ::_exit((*static_cast<F*>(argument))()); }, &f);
}

// The same in a plain fork.
template <class F>
pid_t plain_fork_into(F f) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(f());
  return pid;
}

// 1000 and more: a signal.
int end_of(pid_t pid) {
  int status = 0;
  pid_t got;
  do got = ::waitpid(pid, &status, 0);
  while (got < 0 && errno == EINTR);
  if (got != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

template <class F>
int in_copy(F f) {
  const Forked forked = fork_into(f);
  return forked.pid < 0 ? -2 : end_of(forked.pid);
}

struct Tube {
  Tube() {
    if (::pipe2(fds, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  }
  Tube(const Tube&) = delete;
  Tube& operator=(const Tube&) = delete;
  ~Tube() {
    close_read();
    close_write();
  }
  void close_read() { close_one(0); }
  void close_write() { close_one(1); }
  void put(char byte) const {
    if (::write(fds[1], &byte, 1) != 1) ::_exit(98);
  }
  // '-': the end of file.
  char take() const {
    char byte = '-';
    ssize_t got;
    do got = ::read(fds[0], &byte, 1);
    while (got < 0 && errno == EINTR);
    return got == 1 ? byte : '-';
  }
  int fds[2];

private:
  void close_one(int end) {
    if (fds[end] >= 0) ::close(fds[end]);
    fds[end] = -1;
  }
};

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

std::string content_of(int fd) {
  char bytes[4096];
  const ssize_t got = ::pread(fd, bytes, sizeof bytes, 0);
  return std::string(bytes, got > 0 ? static_cast<std::size_t>(got) : 0);
}

sigset_t mask_now() {
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return mask;
}

bool is_for_programs(int signum) {
  return signum != SIGKILL && signum != SIGSTOP && (signum < 32 || signum > 33);
}

bool all_blocked() {
  const sigset_t mask = mask_now();
  for (int signum = 1; signum < NSIG; ++signum)
    if (is_for_programs(signum) && sigismember(&mask, signum) != 1) return false;
  return true;
}

bool none_blocked() {
  const sigset_t mask = mask_now();
  for (int signum = 1; signum < NSIG; ++signum)
    if (is_for_programs(signum) && sigismember(&mask, signum) != 0) return false;
  return true;
}

auto disposition_of(int signum) {
  struct sigaction action = {};
  ::sigaction(signum, nullptr, &action);
  return action.sa_handler;
}

bool is_ignored_by_a_snapshot(int signum) {
  for (const int ignored : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP})
    if (signum == ignored) return true;
  return false;
}

// Sets a disposition for the lifetime of the object.
class Disposition {
public:
  Disposition(int signum, void (*to)(int)) : signum_(signum) {
    struct sigaction action = {};
    action.sa_handler = to;
    ::sigaction(signum, &action, &before_);
  }
  Disposition(const Disposition&) = delete;
  Disposition& operator=(const Disposition&) = delete;
  ~Disposition() { ::sigaction(signum_, &before_, nullptr); }

private:
  int signum_;
  struct sigaction before_ {};
};

bool any_of_them(pid_t) {
  return true;
}
bool none_of_them(pid_t) {
  return false;
}

int death_signal() {
  int signum = 0;
  ::prctl(PR_GET_PDEATHSIG, &signum);
  return signum;
}

bool is_dev_null(int fd) {
  struct stat there {};
  struct stat null {};
  return ::fstat(fd, &there) == 0 && ::stat("/dev/null", &null) == 0 &&
         there.st_rdev == null.st_rdev && S_ISCHR(there.st_mode);
}

}  // namespace

// ---- fork_clean ----

BOOST_AUTO_TEST_SUITE(clean_forks)

// An empty stream is not flushed: unwritten output must be found in any stream.
BOOST_AUTO_TEST_CASE(buffered_output_is_found_in_any_stream) {
  const File wide(std::tmpfile());
  std::fwide(wide.get(), 1);
  std::fputws(L"wide", wide.get());
  flush_streams();
  BOOST_TEST(content_of(::fileno(wide.get())) == "wide");

  struct Counting : std::stringbuf {
    int sync() override { return ++synced, 0; }
    int synced = 0;
  } own;
  flush_streams();  // std::clog is still synchronised with stdio
  std::streambuf* const before = std::clog.rdbuf(&own);
  flush_streams();
  flush_streams();
  std::clog.rdbuf(before);
  flush_streams();
  BOOST_TEST(own.synced == 2);
}

BOOST_AUTO_TEST_CASE(the_function_runs_in_the_forked_process) {
  const pid_t parent = ::getpid();
  BOOST_TEST(in_copy([&] { return ::getppid() == parent && ::getpid() != parent ? 17 : 1; }) == 17);
}

BOOST_AUTO_TEST_CASE(the_function_of_a_fork_must_not_return) {
  const Forked forked = fork_clean([](void*) {}, nullptr);
  BOOST_REQUIRE(forked.pid > 0);
  BOOST_TEST(end_of(forked.pid) == 70);
}

BOOST_AUTO_TEST_CASE(nothing_is_printed_twice, *testing::guarantee("6.1")) {
  const File file(std::tmpfile());
  BOOST_REQUIRE(file != nullptr);
  const File redirected(std::tmpfile());
  std::fputs("once", file.get());
  const int status = in_copy([&] {
    std::fputs(" child", file.get());
    std::fflush(nullptr);
    return 0;
  });
  BOOST_TEST(status == 0);
  std::fputs(" parent", file.get());
  std::fflush(file.get());
  BOOST_TEST(content_of(::fileno(file.get())) == "once child parent");
}

BOOST_AUTO_TEST_CASE(streams_print_nothing_twice, *testing::guarantee("6.1")) {
  for (std::ostream* stream : {&std::cout, &std::cerr, &std::clog}) {
    char path[] = "/tmp/evparallel-21-XXXXXX";
    const int fd = ::mkstemp(path);
    BOOST_REQUIRE(fd >= 0);
    std::ofstream file(path);
    std::streambuf* const before = stream->rdbuf(file.rdbuf());
    const std::ios::fmtflags flags = stream->flags();
    *stream << std::nounitbuf << "once";
    const int status = in_copy([&] {
      *stream << " child";
      stream->flush();
      return 0;
    });
    *stream << " parent";
    stream->flush();
    stream->flags(flags);
    stream->rdbuf(before);
    BOOST_TEST(status == 0);
    BOOST_TEST(content_of(fd) == "once child parent");
    file.close();
    ::unlink(path);
    ::close(fd);
  }
}

// A stream that throws on a failed write must not end the program in a fork.
BOOST_AUTO_TEST_CASE(a_stream_that_throws_does_no_harm) {
  struct Broken : std::streambuf {
    int sync() override { return -1; }
  } broken;
  std::streambuf* const before = std::cout.rdbuf(&broken);
  std::cout.exceptions(std::ios::badbit);
  const int status = in_copy([] { return 5; });
  std::cout.exceptions(std::ios::goodbit);
  std::cout.clear();
  std::cout.rdbuf(before);
  BOOST_TEST(status == 5);
}

BOOST_AUTO_TEST_CASE(signals_are_blocked_only_in_the_forked_process) {
  sigset_t usr2;
  sigset_t before;
  sigemptyset(&usr2);
  sigaddset(&usr2, SIGUSR2);
  ::pthread_sigmask(SIG_BLOCK, &usr2, &before);
  const int status = in_copy([] { return all_blocked() ? 0 : 1; });
  sigset_t after = mask_now();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  BOOST_TEST(status == 0);
  for (int signum = 1; signum < NSIG; ++signum)
    if (is_for_programs(signum))
      BOOST_TEST(sigismember(&after, signum) ==
                 (signum == SIGUSR2 || sigismember(&before, signum) == 1 ? 1 : 0));
}

BOOST_AUTO_TEST_CASE(an_injected_fault_is_an_errno) {
  fault::Plan plan;
  plan.victim = fault::Victim::parent;
  plan.fork_failures = 2;
  plan.fork_errno = ENOMEM;
  fault::arm(plan);
  for (int i = 0; i < 2; ++i) {
    const Forked forked = fork_into([] { return 1; });
    BOOST_TEST(forked.pid == -1);
    BOOST_TEST(forked.error == ENOMEM);
  }
  BOOST_TEST(in_copy([] { return 3; }) == 3);
  fault::arm(plan);  // arms the plan again
  fault::disarm();
  BOOST_TEST(in_copy([] { return 4; }) == 4);
}

BOOST_AUTO_TEST_CASE(a_fork_that_the_system_refuses_is_an_errno) {
  const int status = end_of(plain_fork_into([] {
    const rlimit none{0, 0};
    if (::setrlimit(RLIMIT_NPROC, &none) != 0) return 1;
    if (::getuid() == 0 && ::setuid(65533) != 0) return 2;  // the limit does not apply to root
    const Forked forked = fork_into([] { return 0; });
    if (forked.pid != -1 || forked.error != EAGAIN) return 3;
    return none_blocked() ? 0 : 4;
  }));
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(every_fork_runs_its_hooks_first) {
  static int reported;
  reported = 0;
  on_fork_in_child([] { ++reported; });
  BOOST_TEST(in_copy([] { return reported; }) == 1);
  const pid_t plain = plain_fork_into([] { return reported; });
  BOOST_TEST(end_of(plain) == 1);
  BOOST_TEST(reported == 0);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- the state of a copy ----

BOOST_AUTO_TEST_SUITE(far_processes)

BOOST_AUTO_TEST_CASE(a_snapshot_has_default_signals_and_its_own_group) {
  const Disposition handled(SIGUSR1, [](int) {});
  const Disposition ignored(SIGUSR2, SIG_IGN);
  const Disposition deaf(SIGCHLD, SIG_DFL);
  const Disposition real_time(SIGRTMAX, SIG_IGN);
  const pid_t parent = ::getpid();
  const int status = in_copy([&] {
    if (!become_snapshot(parent)) return 1;
    for (int signum = 1; signum < NSIG; ++signum) {
      if (!is_for_programs(signum)) continue;
      if (signum != SIGTERM && disposition_of(signum) != SIG_DFL) return 100 + signum;
    }
    if (::getpgrp() != ::getpid()) return 2;
    if (death_signal() != SIGCONT) return 3;
    return all_blocked() ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_child_has_default_signals_and_dies_with_its_snapshot) {
  const Disposition handled(SIGUSR1, [](int) {});
  const Disposition ignored(SIGUSR2, SIG_IGN);
  const pid_t parent = ::getpid();
  const int status = in_copy([&] {
    if (!become_snapshot(parent)) return 1;
    const int signals = open_signal_descriptor();
    const pid_t snapshot = ::getpid();
    const int of_child = in_copy([&] {
      if (!become_child(snapshot)) return 11;
      for (int signum = 1; signum < NSIG; ++signum)
        if (is_for_programs(signum) && signum != SIGTERM && disposition_of(signum) != SIG_DFL)
          return 100 + signum;
      if (!none_blocked()) return 12;
      if (::getpgrp() != ::getpid()) return 13;
      return death_signal() == SIGKILL ? 0 : 14;
    });
    return signals < 0 ? 2 : of_child;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(only_the_real_parent_is_accepted_as_parent) {
  BOOST_TEST(in_copy([] { return become_snapshot(::getpid()) ? 1 : 0; }) == 0);
  BOOST_TEST(in_copy([] { return become_child(::getpid()) ? 1 : 0; }) == 0);
  BOOST_TEST(parent_is(::getppid()));
  BOOST_TEST(!parent_is(::getpid()));
}

// The parent dies before the copy can request a signal for that.
BOOST_AUTO_TEST_CASE(a_parent_that_is_already_dead_is_noticed) {
  for (const bool snapshot : {true, false}) {
    Tube life;
    Tube said;
    const pid_t middle = plain_fork_into([&] {
      const pid_t self = ::getpid();
      const Forked far = fork_into([&] {
        life.close_write();
        life.take();  // until the middle process is dead
        if (!eventually([&] { return !parent_is(self); })) return 1;
        said.put((snapshot ? become_snapshot(self) : become_child(self)) ? 'y' : 'n');
        return 0;
      });
      return far.pid > 0 ? 0 : 1;
    });
    life.close_write();
    said.close_write();
    BOOST_TEST(end_of(middle) == 0);
    BOOST_TEST(said.take() == 'n');
    BOOST_TEST(said.take() == '-');
  }
}

BOOST_AUTO_TEST_CASE(the_signal_descriptor_receives_blocked_signals) {
  const pid_t parent = ::getpid();
  const int status = in_copy([&] {
    become_snapshot(parent);
    const int fd = open_signal_descriptor();
    if (fd < 0) return 1;
    if ((::fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0) return 2;
    if ((::fcntl(fd, F_GETFL) & O_NONBLOCK) == 0) return 3;
    const sigset_t mask = mask_now();
    for (int signum = 1; signum < NSIG; ++signum) {
      const int blocked =
          signum == SIGCHLD || signum == SIGCONT || is_ignored_by_a_snapshot(signum) ? 1 : 0;
      if (is_for_programs(signum) && sigismember(&mask, signum) != blocked) return 100 + signum;
    }
    pollfd wait{fd, POLLIN, 0};
    for (const int signum : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP})
      ::kill(::getpid(), signum);
    if (::poll(&wait, 1, 0) != 0) return 4;
    drain_signal_descriptor(fd);  // there is no signal: it does not wait
    for (const int signum : {SIGCONT, SIGCHLD}) {
      ::kill(::getpid(), signum);
      if (::poll(&wait, 1, 0) != 1) return 5;
      drain_signal_descriptor(fd);
      if (::poll(&wait, 1, 0) != 0) return 6;
    }
    const Forked child = fork_into([] { return 0; });
    if (child.pid < 0 || !testing::is_ready(fd)) return 7;
    end_of(child.pid);
    return 0;
  });
  BOOST_TEST(status == 0);
}

namespace {

// A middle process takes a snapshot and is killed; the snapshot reports what it has noticed.
void parent_dies(bool stopped) {
  Tube said;
  Tube wait;
  const pid_t middle = plain_fork_into([&] {
    const pid_t self = ::getpid();
    const Forked far = fork_into([&] {
      said.close_read();
      if (!become_snapshot(self)) return 1;
      const int fd = open_signal_descriptor();
      const pid_t pid = ::getpid();
      if (::write(said.fds[1], &pid, sizeof pid) != sizeof pid) return 2;
      pollfd signals{fd, POLLIN, 0};
      for (;;) {
        if (::poll(&signals, 1, -1) < 0) continue;
        drain_signal_descriptor(fd);
        if (!parent_is(self)) break;
      }
      said.put('n');
      return 0;
    });
    if (far.pid < 0) return 1;
    wait.close_write();
    wait.take();
    return 0;
  });
  said.close_write();
  pid_t snapshot = 0;
  BOOST_REQUIRE(::read(said.fds[0], &snapshot, sizeof snapshot) == sizeof snapshot);
  if (stopped) {
    BOOST_TEST(::kill(snapshot, SIGSTOP) == 0);
    BOOST_TEST(eventually([&] { return state_of(snapshot) == 'T'; }));
  }
  ::kill(middle, SIGKILL);
  BOOST_TEST(end_of(middle) == 1000 + SIGKILL);
  BOOST_TEST(said.take() == 'n');
  BOOST_TEST(end_of(snapshot) == 0);  // the test is its new parent
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_snapshot_notices_that_its_parent_has_died) {
  parent_dies(false);
}

BOOST_AUTO_TEST_CASE(a_stopped_snapshot_wakes_when_its_parent_dies) {
  parent_dies(true);
}

BOOST_AUTO_TEST_CASE(a_child_dies_with_its_snapshot) {
  Tube said;
  const pid_t parent = ::getpid();
  const Forked snapshot = fork_into([&] {
    if (!become_snapshot(parent)) return 1;
    const pid_t self = ::getpid();
    const Forked child = fork_into([&] {
      if (!become_child(self)) return 1;
      const pid_t pid = ::getpid();
      if (::write(said.fds[1], &pid, sizeof pid) != sizeof pid) return 2;
      for (;;) ::pause();
    });
    if (child.pid < 0) return 1;
    for (;;) ::pause();
  });
  BOOST_REQUIRE(snapshot.pid > 0);
  pid_t child = 0;
  BOOST_REQUIRE(::read(said.fds[0], &child, sizeof child) == sizeof child);
  BOOST_TEST(testing::process_exists(child));
  ::kill(snapshot.pid, SIGKILL);
  BOOST_TEST(end_of(snapshot.pid) == 1000 + SIGKILL);
  BOOST_TEST(end_of(child) == 1000 + SIGKILL);  // the test is its new parent
}

BOOST_AUTO_TEST_CASE(a_process_has_one_role) {
  BOOST_TEST((role() == Role::parent));
  const int status = in_copy([] {
    if (role() != Role::parent) return 1;
    set_role(Role::snapshot);
    if (role() != Role::snapshot) return 2;
    return in_copy([] {
      if (role() != Role::snapshot) return 3;
      set_role(Role::child);
      return role() == Role::child ? 0 : 4;
    });
  });
  BOOST_TEST(status == 0);
  BOOST_TEST((role() == Role::parent));
}

BOOST_AUTO_TEST_CASE(an_owner_process_recognises_only_itself) {
  const OwnerProcess here = OwnerProcess::here();
  BOOST_TEST(here.is_here());
  BOOST_TEST(here.pid == ::getpid());
  BOOST_TEST(in_copy([&] { return here.is_here() || !OwnerProcess::here().is_here() ? 1 : 0; }) ==
             0);
  BOOST_TEST(end_of(plain_fork_into([&] { return here.is_here() ? 1 : 0; })) == 0);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- standard descriptors ----

BOOST_AUTO_TEST_SUITE(standard_descriptors)

BOOST_AUTO_TEST_CASE(missing_standard_descriptors_are_opened) {
  for (unsigned closed = 0; closed < 8; ++closed) {
    const File file(std::tmpfile());
    const int status = in_copy([&] {
      for (int fd = 0; fd < 3; ++fd) {
        ::dup2(::fileno(file.get()), fd);
        if (closed & 1U << fd) ::close(fd);
      }
      const std::size_t before = testing::count_descriptors();
      open_missing_standard_descriptors();
      std::size_t opened = 0;
      for (int fd = 0; fd < 3; ++fd) {
        const bool was_closed = (closed & 1U << fd) != 0;
        if (is_dev_null(fd) != was_closed) return 10 + fd;
        if ((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0) return 20 + fd;  // programs inherit them
        if (was_closed && (::fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR) return 30 + fd;
        opened += was_closed ? 1U : 0U;
      }
      return testing::count_descriptors() == before + opened ? 0 : 1;
    });
    BOOST_TEST(status == 0);
  }
}

BOOST_AUTO_TEST_CASE(standard_input_is_detached) {
  const Tube tube;
  const int status = in_copy([&] {
    ::dup2(tube.fds[0], STDIN_FILENO);
    const std::size_t before = testing::count_descriptors();
    detach_stdin();
    if (!is_dev_null(STDIN_FILENO)) return 1;
    if ((::fcntl(STDIN_FILENO, F_GETFD) & FD_CLOEXEC) != 0) return 2;
    char byte;
    if (::read(STDIN_FILENO, &byte, 1) != 0) return 3;
    return testing::count_descriptors() == before ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- ends of children ----

BOOST_AUTO_TEST_SUITE(ends)

BOOST_AUTO_TEST_CASE(no_end_is_reported_while_all_children_live) {
  Reaped none;
  BOOST_TEST(!reap_next(none, any_of_them));
  Tube life;
  const Forked child = fork_into([&] {
    life.close_write();
    life.take();
    return 0;
  });
  BOOST_TEST(!reap_next(none, any_of_them));  // one of them is alive: it is not waited for
  BOOST_TEST(!ended(child.pid, none));
  BOOST_TEST(none.pid == 0);
  life.close_write();
  BOOST_TEST(end_of(child.pid) == 0);
}

BOOST_AUTO_TEST_CASE(each_end_is_reported_once) {
  const Forked by_status = fork_into([] { return 3; });
  const Forked by_signal = fork_into([] {
    sigset_t none;
    sigemptyset(&none);
    ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
    ::raise(SIGKILL);
    return 0;
  });
  bool reported_status = false;
  bool reported_signal = false;
  for (int i = 0; i < 2; ++i) {
    Reaped got;
    BOOST_REQUIRE(eventually([&] { return reap_next(got, any_of_them); }));
    if (got.pid == by_status.pid) {
      BOOST_TEST(!reported_status);
      reported_status = true;
      BOOST_TEST((WIFEXITED(got.wait_status) && WEXITSTATUS(got.wait_status) == 3));
    } else {
      BOOST_TEST(got.pid == by_signal.pid);
      BOOST_TEST(!reported_signal);
      reported_signal = true;
      BOOST_TEST((WIFSIGNALED(got.wait_status) && WTERMSIG(got.wait_status) == SIGKILL));
    }
  }
  Reaped none;
  BOOST_TEST(!reap_next(none, any_of_them));
}

BOOST_AUTO_TEST_CASE(the_resource_use_of_a_child_is_reported) {
  using std::chrono::milliseconds;
  constexpr std::size_t size = 8 << 20;
  const Forked child = fork_into([] {
    void* const place =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return 1;
    ::madvise(place, size, MADV_NOHUGEPAGE);
    std::memset(place, 'x', size);
    rusage usage{};
    do {
      for (volatile int i = 0; i < 100000; i = i + 1) {}
      ::getrusage(RUSAGE_SELF, &usage);
    } while (usage.ru_utime.tv_sec == 0 && usage.ru_utime.tv_usec < 30000);
    return 0;
  });
  Reaped got;
  BOOST_REQUIRE(eventually([&] { return reap_next(got, any_of_them); }));
  BOOST_TEST(got.pid == child.pid);
  BOOST_TEST(got.wait_status == 0);
  BOOST_TEST((got.usage.user_time >= milliseconds(25)));
  BOOST_TEST((got.usage.system_time >= milliseconds(0)));
  BOOST_TEST(got.usage.max_rss >= 8192);  // kilobytes
  BOOST_TEST(got.usage.minor_faults >= 2000);
  BOOST_TEST(got.usage.major_faults >= 0);
}

// Processes of a child's group end with the child, before its number can be reused.
BOOST_AUTO_TEST_CASE(the_group_of_a_child_ends_with_it) {
  for (const bool is_child : {true, false}) {
    Tube said;
    const Forked child = fork_into([&] {
      make_group(::getpid());
      const pid_t left = plain_fork_into([] {
        for (;;) ::pause();
        return 0;
      });
      return ::write(said.fds[1], &left, sizeof left) == sizeof left ? 0 : 1;
    });
    make_group(child.pid);
    pid_t left = 0;
    BOOST_REQUIRE(::read(said.fds[0], &left, sizeof left) == sizeof left);
    Reaped got;
    BOOST_REQUIRE(
        eventually([&] { return reap_next(got, is_child ? any_of_them : none_of_them); }));
    BOOST_TEST(got.pid == child.pid);
    BOOST_TEST(got.wait_status == 0);
    // The test is its new parent.  The group of another process is left alone.
    if (!is_child) {
      int status = 0;
      ::kill(left, SIGSTOP);
      BOOST_TEST(::waitpid(left, &status, WUNTRACED) == left);
      BOOST_TEST(WIFSTOPPED(status));
      ::kill(left, SIGKILL);
    }
    BOOST_TEST(end_of(left) == 1000 + SIGKILL);
  }
}

BOOST_AUTO_TEST_CASE(one_chosen_child_is_reaped) {
  const Forked other = fork_into([] { return 1; });
  const Forked child = fork_into([] { return 2; });
  Reaped got;
  BOOST_REQUIRE(eventually([&] { return ended(child.pid, got); }));
  BOOST_TEST(got.pid == child.pid);
  BOOST_TEST((WIFEXITED(got.wait_status) && WEXITSTATUS(got.wait_status) == 2));
  BOOST_TEST(end_of(other.pid) == 1);  // untouched
}

BOOST_AUTO_TEST_CASE(a_lost_status_is_reported) {
  const int status = in_copy([] {
    ::signal(SIGCHLD, SIG_IGN);
    Tube life;
    const Forked child = fork_into([&] {
      life.close_write();
      life.take();
      return 9;
    });
    Reaped got;
    if (ended(child.pid, got)) return 1;
    life.close_write();
    if (!eventually([&] { return ended(child.pid, got); })) return 2;
    return got.pid == child.pid && got.wait_status == 0 ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(process_groups_and_processes_are_killed) {
  Tube said;
  const Forked child = fork_into([&] {
    make_group(::getpid());
    const pid_t second = plain_fork_into([] {
      for (;;) ::pause();
      return 0;
    });
    if (::write(said.fds[1], &second, sizeof second) != sizeof second) return 1;
    for (;;) ::pause();
  });
  pid_t second = 0;
  BOOST_REQUIRE(::read(said.fds[0], &second, sizeof second) == sizeof second);
  make_group(child.pid);
  BOOST_TEST(::getpgid(second) == child.pid);
  kill_process(child.pid, SIGSTOP);
  BOOST_TEST(eventually([&] { return state_of(child.pid) == 'T'; }));
  BOOST_TEST(state_of(second) != 'T');
  kill_group(child.pid, SIGKILL);
  BOOST_TEST(end_of(child.pid) == 1000 + SIGKILL);
  BOOST_TEST(end_of(second) == 1000 + SIGKILL);  // the test is its new parent
}

BOOST_AUTO_TEST_SUITE_END()

// ---- with threads: last, as the C library never forgets that there were threads ----

BOOST_AUTO_TEST_SUITE(with_threads)

// A thread that waits for input holds the lock of its stream.
BOOST_AUTO_TEST_CASE(flushing_does_not_wait_for_a_reading_thread) {
  Tube tube;
  const File input(::fdopen(::dup(tube.fds[0]), "r"));
  std::atomic<pid_t> tid{0};
  int got = 0;
  std::thread reader([&] {
    tid = ::gettid();
    got = std::fgetc(input.get());
  });
  BOOST_TEST(eventually([&] { return tid != 0 && state_of(tid) == 'S'; }));
  flush_streams();
  tube.put('x');
  reader.join();
  BOOST_TEST(got == 'x');
}

// While threads run, one of them may hold the lock of another stream.
BOOST_AUTO_TEST_CASE(standard_output_and_error_are_flushed_while_threads_run,
                     *testing::guarantee("6.5")) {
  Tube tube;
  std::thread another([&] {
    char byte;
    static_cast<void>(::read(tube.fds[0], &byte, 1));
  });
  const File file(std::tmpfile());
  std::fputs("kept", file.get());
  for (std::FILE* stream : {stdout, stderr}) {
    const int before = ::dup(::fileno(stream));
    const File target(std::tmpfile());
    std::setvbuf(stream, nullptr, _IOFBF, 64);
    ::dup2(::fileno(target.get()), ::fileno(stream));
    std::fputs("flushed", stream);
    flush_streams();
    ::dup2(before, ::fileno(stream));
    ::close(before);
    BOOST_TEST(content_of(::fileno(target.get())) == "flushed");
  }
  std::setvbuf(stderr, nullptr, _IONBF, 0);
  BOOST_TEST(content_of(::fileno(file.get())) == "");
  tube.put('x');
  another.join();
}

// After threads have ended, output is not printed twice.
BOOST_AUTO_TEST_CASE(nothing_is_printed_twice_after_threads_have_ended) {
  std::thread([] {}).join();
  const File file(std::tmpfile());
  std::fputs("once", file.get());
  const int status = in_copy([] {
    flush_streams();  // as a child does at its end
    return 0;
  });
  BOOST_TEST(status == 0);
  std::fflush(file.get());
  BOOST_TEST(content_of(::fileno(file.get())) == "once");
}

BOOST_AUTO_TEST_SUITE_END()
