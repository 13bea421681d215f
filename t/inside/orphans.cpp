// orphans.cpp - processes that children leave behind: they are found, ended and counted, and other processes are left
// alone.
#include "calling.hpp"
#include "private_names.hpp"
#include "testing.hpp"

#include "system/fork.hpp"
#include "shared/cancel_table.hpp"
#include "snapshot/orphan_group.hpp"
#include "snapshot/orphans.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <set>
#include <string>

namespace par = evparallel;
using namespace std::chrono_literals;
using par::ChildTable;
using par::Orphans;

namespace {

using Pids = std::set<pid_t>;

void add_to(void* pids, pid_t pid) {
  static_cast<Pids*>(pids)->insert(pid);
}

[[noreturn]] void sleep_for_ever() {
  for (;;) ::pause();
}

// Children of the test program itself, which end with the object.
class Offspring {
public:
  template <class F>
  void add(F f) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      f();
      ::_exit(0);
    }
    pids_.insert(pid);
  }
  Offspring() = default;
  Offspring(const Offspring&) = delete;
  Offspring& operator=(const Offspring&) = delete;
  ~Offspring() {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }
  const Pids& pids() const { return pids_; }

private:
  Pids pids_;
};

// In zeroed memory, as in a snapshot.
struct Table {
  ChildTable children;
  Orphans orphans;
};
Table& table() {
  void* const memory = ::mmap(nullptr, sizeof(Table), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  BOOST_REQUIRE(memory != MAP_FAILED);
  Table& fresh = *static_cast<Table*>(memory);
  fresh.children.set_up();
  fresh.orphans.set_up(fresh.children);
  return fresh;
}

par::Options in(par::Snapshot& snapshot) {
  par::Options options;
  options.snapshot = &snapshot;
  options.linger = 1000ms;
  return options;
}

// ---- tasks ----

// Forks a process that calls `f`, and returns its pid when `f` reports that it is ready.
template <class F>
pid_t started(F f) {
  int ends[2];
  if (::pipe(ends) != 0) return -1;
  if (::fork() == 0) f(ends[1]);
  pid_t pid = 0;
  if (::read(ends[0], &pid, sizeof pid) != sizeof pid) pid = -1;
  ::close(ends[0]);
  ::close(ends[1]);
  return pid;
}

[[noreturn]] void report_and_sleep(int to) {
  const pid_t self = ::getpid();
  if (::write(to, &self, sizeof self) != sizeof self) ::_exit(1);
  sleep_for_ever();
}

pid_t in_the_group(int) {
  return started([](int to) { report_and_sleep(to); });
}

pid_t with_a_session_of_its_own(int) {
  return started([](int to) {
    ::setsid();
    ::signal(SIGTERM, SIG_IGN);
    report_and_sleep(to);
  });
}

// As daemon(3) does it: the process that starts it ends at once.
pid_t as_a_daemon(int) {
  return started([](int to) {
    ::setsid();
    if (::fork() > 0) ::_exit(0);
    report_and_sleep(to);
  });
}

// The last process of a chain in which each has a session of its own.
pid_t in_a_chain(int links) {
  return started([links](int to) {
    for (int i = 0; i < links; ++i) {
      ::setsid();
      if (::fork() > 0) sleep_for_ever();
    }
    report_and_sleep(to);
  });
}

// ---- processes that never stay ----

// A pipe with a name, which is at its end when no process has it open for writing.
class Fifo {
public:
  Fifo() {
    BOOST_REQUIRE(::mkdtemp(folder_) != nullptr);
    BOOST_REQUIRE(::mkfifo(path().c_str(), 0600) == 0);
    fd_ = ::open(path().c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    BOOST_REQUIRE(fd_ >= 0);
  }
  Fifo(const Fifo&) = delete;
  Fifo& operator=(const Fifo&) = delete;
  ~Fifo() {
    ::close(fd_);
    ::unlink(path().c_str());
    ::rmdir(folder_);
  }
  std::string path() const { return std::string(folder_) + "/fifo"; }
  // True once what writers have written was read, and none is left.
  bool at_end() {
    char bytes[64];
    const ssize_t size = ::read(fd_, bytes, sizeof bytes);
    if (size > 0) written_ = true;
    return written_ && size == 0;
  }

private:
  char folder_[32] = "/tmp/evparallel-orphans-XXXXXX";
  int fd_ = -1;
  bool written_ = false;
};

struct Bomb {
  char fifo[64];
  std::atomic<bool> over{false};  // at the end of the case, whatever it has shown
};
Bomb* bomb = nullptr;

// What each process does when it has forked another one.
enum class After { end, go_on };

// Each process has a session of its own. A user that has no other processes has at most 150 of them.
template <After after>
pid_t explode(int) {
  const int fifo = ::open(bomb->fifo, O_WRONLY | O_CLOEXEC);
  const rlimit most{150, 150};
  constexpr uid_t user = 64321;
  if (fifo < 0 || ::write(fifo, "x", 1) != 1 || ::setrlimit(RLIMIT_NPROC, &most) != 0 ||
      ::setresuid(user, user, user) != 0)
    return -1;
  for (int i = 0; i < 16; ++i) {
    if (::fork() != 0) continue;
    while (!bomb->over) {
      ::setsid();
      if (::fork() > 0 && after == After::end) break;
    }
    ::_exit(0);
  }
  return ::getpid();
}

// Whether the kernel lets this process make a group for orphans.
bool groups_can_be_made() {
  par::OrphanGroup group{};
  return group.make() && group.remove();
}

// ---- a program that uses such children ----

class Program {
public:
  Program() : snapshot_(std::in_place), loop_(std::in_place) {}

  par::Remote<pid_t(int)> start(pid_t (*task)(int)) {
    return par::run(*loop_, task, in(*snapshot_));
  }
  pid_t ask(par::Remote<pid_t(int)>& f, int x = 0) {
    pid_t pid = -1;
    f(x, [&](par::Result<pid_t> r) { pid = r.value(); });
    loop_->run();
    BOOST_REQUIRE(pid > 0);
    return pid;
  }
  template <class F>
  bool until(F condition) {
    return testing::loop_until(*loop_, condition);
  }
  std::optional<par::Snapshot>& snapshot() { return snapshot_; }
  void end() {
    const pid_t pid = snapshot_->pid();
    snapshot_.reset();
    loop_.reset();
    BOOST_TEST(gone(pid));
    const par::Snapshot closes_what_has_ended;
  }
  static bool gone(pid_t pid) { return testing::gone(pid); }

private:
  std::optional<par::Snapshot> snapshot_;
  std::optional<par::Reactor> loop_;
};

// A program that the test kills.  In it `start` makes children and reports two processes by tell(first, second), which
// does not return.
class ForkedProgram {
public:
  template <class F>
  explicit ForkedProgram(F start) {
    int ends[2];
    BOOST_REQUIRE(::pipe(ends) == 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      Program program;
      start(program, [&](pid_t first, pid_t second) {
        const pid_t pids[2] = {first, second};
        if (::write(ends[1], pids, sizeof pids) != sizeof pids) ::_exit(1);
        sleep_for_ever();
      });
      ::_exit(1);
    }
    BOOST_TEST(::read(ends[0], reported, sizeof reported) == static_cast<ssize_t>(sizeof reported));
    ::close(ends[0]);
    ::close(ends[1]);
  }
  void kill() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  pid_t reported[2] = {};

private:
  pid_t pid_ = -1;
};

}  // namespace

// ---- the children of a process ----

BOOST_AUTO_TEST_CASE(both_methods_find_exactly_the_children) {
  Offspring all;
  for (int i = 0; i < 300; ++i) all.add(sleep_for_ever);  // more than one read returns
  all.add([] {});  // this child ends, and nobody waits for it
  all.add([] {
    ::prctl(PR_SET_NAME, "a) S 1 (b");
    if (::fork() == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      sleep_for_ever();  // not a child of this process
    }
    sleep_for_ever();
  });
  Pids by_parent;
  BOOST_TEST(par::each_child_by_parent(add_to, &by_parent));
  BOOST_TEST(by_parent == all.pids(), boost::test_tools::per_element());
  Pids by_list;
  if (!par::each_child_by_list(add_to, &by_list))
    return testing::skip("this kernel keeps no list of children");
  BOOST_TEST(by_list == all.pids(), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_process_that_can_be_waited_for_is_a_child) {
  Offspring all;
  all.add(sleep_for_ever);
  all.add([] {});
  for (const pid_t pid : all.pids()) {
    BOOST_TEST(par::is_child_of_this_process(pid));
    BOOST_TEST(par::is_child_of_this_process(pid));  // it has not been waited for
  }
  BOOST_TEST(!par::is_child_of_this_process(::getppid()));
  BOOST_TEST(!par::is_child_of_this_process(::getpid()));
}

// ---- search for orphans ----

BOOST_AUTO_TEST_CASE(one_scan_serves_several_ends) {
  Table& all = table();
  BOOST_TEST(all.orphans.wait_time(evparallel::now_ns()) == -1);
  all.orphans.scan_soon();
  const int wait = all.orphans.wait_time(evparallel::now_ns());
  BOOST_TEST(wait >= 0);
  BOOST_TEST(wait <= 200);
  for (int i = 0; i < 1000; ++i) all.orphans.scan_soon();
  BOOST_TEST(all.orphans.wait_time(evparallel::now_ns()) <= wait);  // it is not postponed
  BOOST_TEST(testing::eventually([&] {
    all.orphans.scan_if_due(evparallel::now_ns());
    return all.orphans.wait_time(evparallel::now_ns()) == -1;
  }));
  BOOST_TEST(all.orphans.killed() == 0u);
  ::munmap(&all, sizeof all);
}

BOOST_AUTO_TEST_CASE(processes_in_the_table_are_left_alone_and_orphans_are_counted_once) {
  Table& all = table();
  Offspring own;
  own.add(sleep_for_ever);
  const pid_t child = *own.pids().begin();
  all.children.add(all.children.take_free(), child, 0, 1, par::no_child);
  BOOST_TEST(!all.orphans.look());
  {
    Offspring others;
    others.add(sleep_for_ever);
    others.add(sleep_for_ever);
    BOOST_TEST(all.orphans.look());
    BOOST_TEST(all.orphans.look());  // they are not waited for yet
    BOOST_TEST(all.orphans.killed() == 2u);
    for (const pid_t pid : others.pids()) {
      BOOST_TEST(Program::gone(pid));
      all.orphans.mark_ended(pid);
    }
  }
  BOOST_TEST(!all.orphans.look());
  BOOST_TEST(testing::process_exists(child));
  BOOST_TEST(all.orphans.killed() == 2u);
  ::munmap(&all, sizeof all);
}

// ---- in a snapshot ----

BOOST_AUTO_TEST_CASE(an_orphan_that_left_the_group_is_ended_and_counted) {
  testing::allow_descriptors(1);
  Program program;
  std::uint64_t count = 0;
  for (pid_t (*const task)(int) : {with_a_session_of_its_own, as_a_daemon}) {
    auto f = program.start(task);
    const pid_t one = program.ask(f);
    const pid_t other = program.ask(f);
    BOOST_TEST(testing::process_exists(one));
    f = {};
    BOOST_TEST(Program::gone(one));
    BOOST_TEST(Program::gone(other));
    count += 2;
    BOOST_TEST(program.until([&] { return program.snapshot()->orphans_killed() == count; }));
  }
  BOOST_TEST(program.snapshot()->alive());
  program.end();
}

BOOST_AUTO_TEST_CASE(descendants_of_an_orphan_end_too) {
  testing::allow_descriptors(1);
  Program program;
  auto f = program.start(in_a_chain);
  const pid_t last = program.ask(f, 3);
  f = {};
  BOOST_TEST(Program::gone(last));
  BOOST_TEST(program.until([&] { return program.snapshot()->orphans_killed() == 4u; }));
  program.end();
}

BOOST_AUTO_TEST_CASE(a_process_in_the_group_ends_at_once_and_is_not_counted) {
  testing::allow_descriptors(1);
  Program program;
  auto f = program.start(in_the_group);
  const pid_t one = program.ask(f);
  f = {};
  BOOST_TEST(Program::gone(one));
  // At the next search it is still none.
  auto g = program.start(with_a_session_of_its_own);
  const pid_t other = program.ask(g);
  g = {};
  BOOST_TEST(Program::gone(other));
  BOOST_TEST(program.until([&] { return program.snapshot()->orphans_killed() > 0; }));
  BOOST_TEST(program.snapshot()->orphans_killed() == 1u);
  program.end();
}

// A daemon has lost its own parent, and its child is alive: the daemon is not an orphan yet.
BOOST_AUTO_TEST_CASE(processes_of_a_living_child_survive_the_end_of_others) {
  testing::allow_descriptors(1);
  Program program;
  auto f = program.start(as_a_daemon);
  const pid_t daemon = program.ask(f);
  for (std::uint64_t looks = 1; looks <= 2; ++looks) {
    auto g = program.start(with_a_session_of_its_own);
    const pid_t other = program.ask(g);
    g = {};
    BOOST_TEST(Program::gone(other));
    BOOST_TEST(program.until([&] { return program.snapshot()->orphans_killed() == looks; }));
  }
  BOOST_TEST(testing::process_exists(daemon));
  f = {};
  BOOST_TEST(Program::gone(daemon));
  BOOST_TEST(program.until([&] { return program.snapshot()->orphans_killed() == 3u; }));
  program.end();
}

BOOST_AUTO_TEST_CASE(a_killed_child_leaves_no_orphans) {
  testing::allow_descriptors(1);
  Program program;
  auto f = program.start(as_a_daemon);
  const pid_t daemon = program.ask(f);
  BOOST_TEST(program.until([&] { return f.pid() != 0; }));
  ::kill(f.pid(), SIGKILL);
  BOOST_TEST(Program::gone(daemon));
  program.end();
}

// The snapshot searches once more before it ends, in any kind of end.
BOOST_AUTO_TEST_CASE(no_orphan_is_left_at_the_end_of_the_snapshot) {
  testing::allow_descriptors(1);
  Program program;
  auto f = program.start(in_a_chain);
  const pid_t last = program.ask(f, 2);
  const pid_t snapshot = program.snapshot()->pid();
  program.snapshot().reset();
  f = {};
  BOOST_TEST(Program::gone(snapshot));
  BOOST_TEST(Program::gone(last));
}

BOOST_AUTO_TEST_CASE(no_orphan_is_left_at_the_end_of_the_program) {
  for (const bool busy : {false, true}) {
    ForkedProgram parent([busy](Program& program, auto report) {
      auto f = program.start(as_a_daemon);
      const pid_t daemon = program.ask(f);
      // A child that ends slowly has to be killed first.
      auto g = program.start([](int) -> pid_t { sleep_for_ever(); });
      if (busy) g(0, [](par::Result<pid_t>) {});
      if (program.until([&] { return g.pid() != 0; })) report(daemon, program.snapshot()->pid());
    });
    parent.kill();
    for (const pid_t pid : parent.reported) BOOST_TEST(Program::gone(pid));
  }
}

// ---- a group ----

BOOST_AUTO_TEST_CASE(a_group_ends_its_members_and_what_they_have_forked) {
  par::OrphanGroup group{};
  if (!group.make()) return testing::skip("no control group can be made here");
  BOOST_TEST(group.exists());
  int ends[2];
  BOOST_REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const pid_t first = ::fork();
  if (first == 0) {
    char byte;
    if (::read(ends[0], &byte, 1) != 1) ::_exit(1);
    sleep_for_ever();
  }
  BOOST_TEST(group.add(first));
  BOOST_TEST(!group.remove());
  BOOST_TEST(group.make());  // it is there already
  group.kill();
  int status = 0;
  BOOST_TEST(::waitpid(first, &status, 0) == first);
  BOOST_TEST((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
  BOOST_TEST(!group.add(first));
  BOOST_TEST(testing::eventually([&] { return group.remove(); }));
  BOOST_TEST(!group.exists());
  ::close(ends[0]);
  ::close(ends[1]);
}

// A kill came too late for most of them, and the others filled the gaps.
BOOST_AUTO_TEST_CASE(orphans_that_fork_without_end_do_not_outlive_their_child,
                     *testing::guarantee("5.4")) {
  if (!groups_can_be_made()) return testing::skip("no control group can be made here");
  if (testing::watched_for_leaks()) return testing::skip("to look for leaks takes a process more");
  testing::allow_descriptors(1);
  for (pid_t (*const task)(int) : {explode<After::end>, explode<After::go_on>}) {
    Fifo fifo;
    bomb = &testing::shared<Bomb>();
    std::strcpy(bomb->fifo, fifo.path().c_str());
    Program program;
    auto f = program.start(task);
    program.ask(f);
    f = {};
    BOOST_TEST(program.until([&] { return fifo.at_end(); }));
    bomb->over = true;
    BOOST_TEST(program.snapshot()->alive());
    program.end();
  }
}

BOOST_AUTO_TEST_CASE(orphans_that_fork_without_end_do_not_outlive_the_program,
                     *testing::guarantee("5.4")) {
  if (!groups_can_be_made()) return testing::skip("no control group can be made here");
  if (testing::watched_for_leaks()) return testing::skip("to look for leaks takes a process more");
  for (pid_t (*const task)(int) : {explode<After::end>, explode<After::go_on>}) {
    Fifo fifo;
    bomb = &testing::shared<Bomb>();
    std::strcpy(bomb->fifo, fifo.path().c_str());
    ForkedProgram parent([task](Program& program, auto report) {
      auto f = program.start(task);
      const pid_t child = program.ask(f);
      report(child, program.snapshot()->pid());
    });
    parent.kill();
    BOOST_TEST(testing::eventually([&] { return fifo.at_end(); }));
    bomb->over = true;
    for (const pid_t pid : parent.reported) BOOST_TEST(Program::gone(pid));
  }
  BOOST_TEST(groups_can_be_made());
}

// ---- a tracer ----

// For the parent a process is not gone before its tracer has waited for it.
BOOST_AUTO_TEST_CASE(a_child_that_ends_slowly_keeps_no_orphan_alive) {
  if (testing::watched_for_leaks()) return testing::skip("to look for leaks is to trace");
  ForkedProgram parent([](Program& program, auto report) {
    auto f = program.start(as_a_daemon);
    auto g = program.start([](int) -> pid_t { sleep_for_ever(); });
    const pid_t daemon = program.ask(f);
    if (program.until([&] { return g.pid() != 0; })) report(daemon, g.pid());
  });
  const auto [daemon, child] = parent.reported;
  const bool held = ::ptrace(PTRACE_SEIZE, child, nullptr, nullptr) == 0;
  parent.kill();
  BOOST_TEST(Program::gone(daemon));
  if (held) ::waitpid(child, nullptr, 0);
  if (!held) testing::skip("no process may be traced here");
}
