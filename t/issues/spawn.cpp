// spawn.cpp - faults between the request for a child and its end.
#include "elsewhere.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace par = evparallel;

void testing_main_init() {}

namespace {

constexpr uid_t nobody_else = 54321;

// The kernel drops the parent-death signal of a process whose ids change.
void become_ordinary_user() {
  if (::setresgid(nobody_else, nobody_else, nobody_else) != 0 ||
      ::setresuid(nobody_else, nobody_else, nobody_else) != 0)
    throw std::runtime_error("setresuid");
}

// Not root, and without the right to send signals to other users.
constexpr uid_t somebody_else = 54322;
void become_user_who_may_change_ids() {
  ::prctl(PR_SET_KEEPCAPS, 1);
  become_ordinary_user();
  __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct rights[2]{};
  rights[0].effective = rights[0].permitted = 1U << CAP_SETUID;
  if (::syscall(SYS_capset, &head, rights) != 0) throw std::runtime_error("capset");
}

[[noreturn]] void spin() {
  for (;;) ::pause();
}

// Reports of a program that a case runs.
struct Said {
  int reading = -1;
  int writing = -1;
  Said() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    reading = ends[0];
    writing = ends[1];
  }
  Said(const Said&) = delete;
  Said& operator=(const Said&) = delete;
  ~Said() {
    ::close(reading);
    ::close(writing);
  }
  void report(pid_t pid) const {
    if (::write(writing, &pid, sizeof pid) != sizeof pid) ::_exit(90);
  }
  pid_t receive() const {
    pid_t pid = 0;
    if (!testing::is_ready(reading) || ::read(reading, &pid, sizeof pid) != sizeof pid)
      throw std::runtime_error("the program does not say it");
    return pid;
  }
};
Said* said;

// A program in a process of its own that is stopped before its snapshot is killed: it handles no event.
class Program {
public:
  explicit Program(void (*run)()) : pid_(::fork()) {
    if (pid_ != 0) return;
    try {
      run();
    } catch (...) {}
    ::_exit(91);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  void stop() const {
    ::kill(pid_, SIGSTOP);
    ::waitpid(pid_, nullptr, WUNTRACED);
  }

private:
  pid_t pid_;
};

bool cannot_change_ids() {
  if (::geteuid() == 0) return false;
  testing::skip("only root can give up rights");
  return true;
}

// ---- tasks ----

int give_up_rights_and_spin(int) {
  become_ordinary_user();
  said->report(::getpid());
  spin();
}

int give_up_rights_then_spin(int call) {
  if (call == 1)
    become_ordinary_user();
  else
    said->report(::getpid());
  while (call > 1) ::pause();
  return call;
}

void give_up_rights_and_go_on(par::Pipe<int, int> pipe) {
  become_ordinary_user();
  pid_t self = ::getpid();
  int turns = 0;
  par::this_reactor()
      .every(std::chrono::milliseconds(1),
             [self, turns]() mutable {
               if (++turns == 3) said->report(self);
             })
      .detach();
  pipe.on_end([] {});  // it outlives its program
  par::this_reactor().run();
}

// Its loop runs while `far` is under way.
template <class F>
[[noreturn]] void be_program(F start) {
  par::init();
  said->report(par::default_snapshot().pid());
  par::Reactor loop;
  start(loop);
  loop.run();
  for (;;) ::pause();
}

}  // namespace

// ---- a task that gives up its rights does not outlive its snapshot ----

BOOST_AUTO_TEST_CASE(a_task_with_other_user_ids_is_killed_with_its_snapshot,
                     *testing::guarantee("5.3")) {
  if (cannot_change_ids()) return;
  const Said received;
  said = const_cast<Said*>(&received);
  const Program program([] {
    be_program([](par::Reactor& loop) {
      static auto far = par::run(loop, give_up_rights_and_spin);
      far(0, [](par::Result<int>) {});
      while (far.pid() == 0) loop.run_for(std::chrono::milliseconds(1));
      said->report(far.pid());
    });
  });
  const pid_t snapshot = received.receive();
  const pid_t child = received.receive();
  BOOST_TEST(received.receive() == child);  // it has other ids, and the program knows the child
  ::kill(snapshot, SIGKILL);
  BOOST_TEST(testing::gone(child));
}

BOOST_AUTO_TEST_CASE(a_child_that_the_program_must_kill_is_reported_as_lost) {
  if (cannot_change_ids()) return;
  const Said received;
  said = const_cast<Said*>(&received);
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    par::Options options;
    auto process = par::process(
        loop,
        [](par::Pipe<int, int>) {
          become_ordinary_user();
          said->report(::getpid());
          spin();
        },
        options);
    std::optional<par::Cause> cause;
    process.on_exit([&](const par::ExitStatus& how) { cause = how.cause; });
    const pid_t child = said->receive();
    while (process.pid() == 0) loop.run_for(std::chrono::milliseconds(1));
    ::kill(par::default_snapshot().pid(), SIGKILL);
    loop.run();
    if (cause != par::Cause::snapshot_lost) return 1;
    // Nothing holds the loop any more, but the loop must still reap the snapshot.
    const auto gone = [&] {
      loop.run_for(std::chrono::milliseconds(1));
      return !testing::process_exists(child);
    };
    return testing::eventually(gone) ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(
    a_task_that_changes_its_user_ids_is_bound_to_its_snapshot_again_between_calls) {
  if (cannot_change_ids()) return;
  const Said received;
  said = const_cast<Said*>(&received);
  const Program program([] {
    be_program([](par::Reactor& loop) {
      static auto far = par::run(loop, give_up_rights_then_spin);
      far(1, [](par::Result<int>) { far(2, [](par::Result<int>) {}); });
    });
  });
  const pid_t snapshot = received.receive();
  const pid_t child = received.receive();
  program.stop();
  ::kill(snapshot, SIGKILL);
  BOOST_TEST(testing::gone(child));
}

BOOST_AUTO_TEST_CASE(a_task_that_changes_its_user_ids_is_bound_to_its_snapshot_again_in_its_loop) {
  if (cannot_change_ids()) return;
  const Said received;
  said = const_cast<Said*>(&received);
  const Program program([] {
    be_program(
        [](par::Reactor& loop) { static auto far = par::process(loop, give_up_rights_and_go_on); });
  });
  const pid_t snapshot = received.receive();
  const pid_t child = received.receive();
  program.stop();
  ::kill(snapshot, SIGKILL);
  BOOST_TEST(testing::gone(child));
}

// A copy that a task forks by itself is not a child of the library: it may continue, and its parent is not the
// snapshot.
BOOST_AUTO_TEST_CASE(a_fork_of_a_task_is_not_treated_as_an_orphan) {
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    auto far = par::run(loop, [](int) {
      const pid_t copy = ::fork();
      if (copy == 0) {
        par::Reactor own;
        int turns = 0;
        while (turns < 40) {
          own.after(std::chrono::milliseconds(0), [&] { ++turns; }).detach();
          own.run();
        }
        ::_exit(7);
      }
      int how = 0;
      ::waitpid(copy, &how, 0);
      return WIFEXITED(how) ? WEXITSTATUS(how) : -WTERMSIG(how);
    });
    int answer = 0;
    far(0, [&](par::Result<int> r) { answer = r.value(); });
    loop.run();
    return answer == 7 ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

// So the library cannot kill it; everything that waits for its end completes without that.
BOOST_AUTO_TEST_CASE(a_child_that_its_snapshot_may_not_kill_ends_after_its_call,
                     *testing::guarantee("3.3")) {
  if (cannot_change_ids()) return;
  const Said received;
  said = const_cast<Said*>(&received);
  const int status = testing::elsewhere([] {
    become_user_who_may_change_ids();
    static const Said go_on;
    par::init();
    par::Reactor loop;
    par::Options options;
    options.grace = std::chrono::milliseconds(1);
    std::optional<par::Remote<int(int)>> far = par::run(
        loop,
        [](int) {
          if (::setresuid(somebody_else, somebody_else, somebody_else) != 0) return 1;
          said->report(::getpid());
          go_on.receive();
          return 0;
        },
        options);
    std::optional<par::Errc> code;
    par::Call call = (*far)(0, [&](par::Result<int> r) {
      if (!r) code = r.error().code();
    });
    const pid_t child = said->receive();
    call.cancel();
    loop.run();
    if (code != par::Errc::cancelled) return 1;
    if (::kill(child, SIGKILL) == 0 || errno != EPERM) return 2;
    far.reset();
    go_on.report(0);
    return testing::gone(child) ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

// Reporting does not need rights that the kernel grants only to root after a change of ids.
BOOST_AUTO_TEST_CASE(a_crash_of_a_task_with_other_user_ids_is_reported_with_its_stack) {
  if (cannot_change_ids()) return;
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    par::Options options;
    options.backtrace = true;
    auto far = par::run(
        loop,
        [](int) {
          become_ordinary_user();
          ::raise(SIGSEGV);
          return 0;
        },
        options);
    bool known = false;
    far(0, [&](par::Result<int> r) {
      const auto& how = r.error().exit();
      known = how && how->crash && !how->crash->frames.empty();
    });
    loop.run();
    return known ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

// ---- niceness, CPUs, limits ----

namespace {

par::Options with_nice(int nice) {
  par::Options options;
  options.nice = nice;
  return options;
}

int own_niceness(int) {
  return ::getpriority(PRIO_PROCESS, 0);
}

std::vector<int> own_cpus(int) {
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

void use_only(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) throw std::runtime_error("sched_setaffinity");
}

template <class Inc>
std::optional<par::Result<Inc>> call(par::Reactor& loop, Inc (*f)(int),
                                     const par::Options& options) {
  std::optional<par::Result<Inc>> result;
  auto far = par::run(loop, f, options);
  far(0, [&](par::Result<Inc> r) { result = std::move(r); });
  loop.run();
  return result;
}

bool child_has(par::Reactor& loop, int niceness, const par::Options& options) {
  return call(loop, own_niceness, options)->value() == niceness;
}

// Waits until spares are ready to be taken: they sleep.
void wait_for_spares(unsigned count) {
  testing::eventually([count] {
    const std::vector<pid_t> all = testing::children_of(par::default_snapshot().pid());
    return all.size() == count && std::all_of(all.begin(), all.end(), [](pid_t pid) {
             return testing::state_of(pid) == 'S';
           });
  });
}

}  // namespace

// Like every other attribute of a child: a later change in the program does not affect its children.
BOOST_AUTO_TEST_CASE(niceness_is_added_to_that_of_the_snapshot) {
  for (const unsigned spares : {0U, 2U}) {
    const int status = testing::elsewhere([spares] {
      const int before = ::getpriority(PRIO_PROCESS, 0);
      if (before > 10) return 0;
      par::SnapshotOptions with_spares;
      with_spares.spares = spares;
      par::init(with_spares);
      par::Reactor loop;
      if (spares > 0) wait_for_spares(spares);
      ::setpriority(PRIO_PROCESS, 0, before + 2);
      if (!child_has(loop, before + 5, with_nice(5))) return 1;
      return child_has(loop, before, {}) ? 0 : 2;
    });
    BOOST_TEST(status == 0, "with " << spares << " spares: " << status);
  }
}

BOOST_AUTO_TEST_CASE(the_largest_niceness_is_the_largest_of_the_kernel) {
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    return child_has(loop, 19, with_nice(INT_MAX)) ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_niceness_that_the_kernel_refuses_fails_the_spawn_by_name) {
  for (const unsigned spares : {0U, 2U}) {
    const int status = testing::elsewhere([spares] {
      if (::geteuid() == 0) become_ordinary_user();
      const rlimit none{0, 0};
      ::setrlimit(RLIMIT_NICE, &none);
      par::SnapshotOptions with_spares;
      with_spares.spares = spares;
      par::init(with_spares);
      par::Reactor loop;
      if (spares > 0) wait_for_spares(spares);
      const auto result = call(loop, own_niceness, with_nice(-3));
      if (*result) return 1;
      const par::Error& error = result->error();
      if (error.code() != par::Errc::spawn_failed || error.os_error() != EACCES) return 2;
      return std::string(error.what()).find("Options::nice to -3") == std::string::npos ? 3 : 0;
    });
    BOOST_TEST(status == 0, "with " << spares << " spares: " << status);
  }
}

BOOST_AUTO_TEST_CASE(a_child_has_the_cpus_that_it_is_given) {
  const std::vector<int> all = own_cpus(0);
  for (const unsigned spares : {0U, 2U}) {
    const int status = testing::elsewhere([&] {
      par::SnapshotOptions with_spares;
      with_spares.spares = spares;
      par::init(with_spares);
      par::Reactor loop;
      if (spares > 0) wait_for_spares(spares);
      use_only(all.front());  // now the program: its children have the CPUs of the snapshot
      par::Options options;
      if (call(loop, own_cpus, options)->value() != all) return 1;
      options.affinity = {all.back()};
      if (call(loop, own_cpus, options)->value() != options.affinity) return 2;
      options.affinity = all;
      return call(loop, own_cpus, options)->value() == all ? 0 : 3;
    });
    BOOST_TEST(status == 0, "with " << spares << " spares: " << status);
  }
}

BOOST_AUTO_TEST_CASE(a_missing_cpu_fails_the_spawn_by_name) {
  const int there = own_cpus(0).front();
  constexpr int not_there = 4711;
  const std::vector<int> alone{not_there};
  const std::vector<int> beside{there, not_there};
  for (const std::vector<int>& cpus : {alone, beside}) {
    const int status = testing::elsewhere([&] {
      par::init();
      par::Reactor loop;
      par::Options options;
      options.affinity = cpus;
      const auto result = call(loop, own_niceness, options);
      if (*result) return 1;
      const par::Error& error = result->error();
      if (error.code() != par::Errc::spawn_failed || error.os_error() != EINVAL) return 2;
      return std::string(error.what()).find("Options::affinity") == std::string::npos ? 3 : 0;
    });
    BOOST_TEST(status == 0, cpus.size() << " CPUs: " << status);
  }
}

BOOST_AUTO_TEST_CASE(an_impossible_cpu_number_is_misuse) {
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    for (const int cpu : {-1, INT_MIN, INT_MAX}) {
      par::Options options;
      options.affinity = {cpu};
      try {
        static_cast<void>(par::run(loop, own_niceness, options));
        return 1;
      } catch (const std::logic_error& error) {
        if (std::string(error.what()).find("affinity") == std::string::npos) return 2;
      }
    }
    return 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_pool_has_as_many_workers_as_its_children_have_cpus) {
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    par::PoolOptions options;
    options.child.affinity = {own_cpus(0).front()};
    auto pool = par::pool(loop, own_niceness, options);
    for (int i = 0; i < 8; ++i) pool.submit(i, [](par::Result<int> r) { r.value(); });
    loop.run();
    return pool.stats().workers.size() == 1 ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_memory_limit_applies_without_proc) {
  if (testing::sanitized) return testing::skip("a sanitizer needs its address space");
  const std::optional<int> status = testing::elsewhere_without_proc([] {
    par::init();
    par::Reactor loop;
    par::Options options;
    options.limits.memory = std::size_t{64} << 20;
    const auto most = [](int) {
      std::size_t had = 0;
      std::vector<std::unique_ptr<char[]>> all;
      constexpr std::size_t block = std::size_t{1} << 20;
      try {
        for (; had < 1024; ++had) all.emplace_back(new char[block]);
      } catch (const std::bad_alloc&) {}
      return static_cast<int>(had);
    };
    const int had = call<int>(loop, most, options)->value();
    return had > 32 && had <= 64 ? 0 : 1;
  });
  if (!status) return testing::skip("no mount namespace can be made here");
  BOOST_TEST(*status == 0);
}

BOOST_AUTO_TEST_CASE(a_growth_limit_that_cannot_be_measured_is_refused) {
  const std::optional<int> status = testing::elsewhere_without_proc([] {
    par::init();
    par::Reactor loop;
    par::PoolOptions options;
    options.max_rss_growth = 1;
    try {
      static_cast<void>(par::pool(loop, own_niceness, options));
    } catch (const par::Error& error) {
      return error.code() == par::Errc::refused ? 0 : 1;
    }
    return 2;
  });
  if (!status) return testing::skip("no mount namespace can be made here");
  BOOST_TEST(*status == 0);
}

// ---- captured references ----

namespace {

template <class F>
bool refused(par::Reactor& loop, F f) {
  try {
    static_cast<void>(par::run(loop, f));
  } catch (const std::logic_error&) {
    return true;
  }
  return false;
}

int result_on_coroutine;
ucontext_t of_thread;
par::Reactor* loop_of_coroutine;
int global = 5;

[[gnu::noinline]] bool refused_further_down(par::Reactor& loop, int& local) {
  return refused(loop, [&local](int x) { return x + local; });
}

void in_coroutine() {
  par::Reactor& loop = *loop_of_coroutine;
  int local = 3;
  const int* on_heap = new int(4);
  const int copied = 6;
  int wrong = 0;
  if (!refused(loop, [&local](int x) { return x + local; })) wrong |= 1;
  if (!refused_further_down(loop, local)) wrong |= 2;
  if (refused(loop, [on_heap](int x) { return x + *on_heap; })) wrong |= 4;
  if (refused(loop, [at = &global](int x) { return x + *at; })) wrong |= 8;
  if (refused(loop, [copy = copied](int x) { return x + copy; })) wrong |= 16;
  delete on_heap;
  result_on_coroutine = wrong;
}

// 0: only the capture by reference was refused.
int on_coroutine(par::Reactor& loop, char* stack, std::size_t size) {
  ucontext_t of_coroutine;
  ::getcontext(&of_coroutine);
  of_coroutine.uc_stack.ss_sp = stack;
  of_coroutine.uc_stack.ss_size = size;
  of_coroutine.uc_link = &of_thread;
  loop_of_coroutine = &loop;
  result_on_coroutine = 64;
  ::makecontext(&of_coroutine, in_coroutine, 0);
  ::swapcontext(&of_thread, &of_coroutine);
  return result_on_coroutine;
}

constexpr std::size_t size_of_stack = 128 * 1024;

int check_captures_everywhere() {
  par::init();
  par::Reactor loop;
  int local = 3;
  if (!refused(loop, [&local](int x) { return x + local; })) return 1;
  if (!refused_further_down(loop, local)) return 2;
  if (refused(loop, [at = &global](int x) { return x + *at; })) return 3;
  const std::unique_ptr<char[]> of_heap(new char[size_of_stack]);
  if (const int wrong = on_coroutine(loop, of_heap.get(), size_of_stack)) return 10 + wrong;
  return 0;
}

}  // namespace

BOOST_AUTO_TEST_CASE(references_are_found_on_the_stack_of_a_coroutine) {
  if (testing::sanitized) return testing::skip("a sanitizer does not know that stack");
  BOOST_TEST(testing::elsewhere(check_captures_everywhere) == 0);
}

// A number beside padding that the compiler could not clear: together they looked like the address of a local that no
// longer exists.  (clang 14, one start in some hundred.)
BOOST_AUTO_TEST_CASE(half_an_address_in_padding_is_not_taken_for_a_capture) {
  const int local = 0;
  const auto of_local = reinterpret_cast<std::uintptr_t>(&local);
  const auto refused_as = [](par::detail::Padding padding, std::uintptr_t word) {
    try {
      par::detail::check_captures(&word, sizeof word, padding);
    } catch (const std::logic_error&) {
      return true;
    }
    return false;
  };
  const std::uintptr_t of_no_frame = of_local - std::uintptr_t{128 * 1024};
  BOOST_TEST(!refused_as(par::detail::Padding::stale, of_no_frame));
  BOOST_TEST(refused_as(par::detail::Padding::zeros, of_no_frame));
  BOOST_TEST(refused_as(par::detail::Padding::stale, of_local));
}

BOOST_AUTO_TEST_CASE(references_are_found_without_proc) {
  if (testing::sanitized) return testing::skip("a sanitizer does not know that stack");
  const std::optional<int> status = testing::elsewhere_without_proc(check_captures_everywhere);
  if (!status) return testing::skip("no mount namespace can be made here");
  BOOST_TEST(*status == 0);
}

BOOST_AUTO_TEST_CASE(references_are_found_without_proc_and_without_a_limit_of_the_stack) {
  if (testing::sanitized) return testing::skip("a sanitizer does not know that stack");
  const std::optional<int> status = testing::elsewhere_without_proc([] {
    rlimit limit{};
    ::getrlimit(RLIMIT_STACK, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_STACK, &limit);
    return check_captures_everywhere();
  });
  if (!status) return testing::skip("no mount namespace can be made here");
  BOOST_TEST(*status == 0);
}
