// snapshot.cpp - faults when a snapshot is taken, and at its start.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <alloca.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace par = evparallel;

namespace {

// In the environment of a program that was executed again: the snapshots that it had before.
constexpr const char* old_snapshots = "EVPARALLEL_TEST_OLD_SNAPSHOTS";

// The exit status is the result of the test.
[[noreturn]] void reap_old_snapshots(const char* pids) {
  std::istringstream all(pids);
  int reaped = 0;
  for (pid_t pid; all >> pid; ++reaped) {
    int how = 0;
    if (::waitpid(pid, &how, 0) != pid || how != 0) ::_exit(2);
  }
  ::_exit(reaped == 2 && testing::children_of(::getpid()).empty() ? 0 : 3);
}

}  // namespace

namespace {

// In the environment of a program that has a sanitizer's thread: how many threads it adds.
constexpr const char* more_threads = "EVPARALLEL_TEST_MORE_THREADS";

// A thread that blocks all signals, as that of a sanitizer does.
class QuietThread {
public:
  QuietThread() {
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { over_.get_future().wait(); });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ~QuietThread() {
    over_.set_value();
    thread_.join();
  }

private:
  std::promise<void> over_{};
  std::thread thread_{};
};

// The exit status is the result of the test.
[[noreturn]] void look_for_threads(int more) {
  std::vector<std::unique_ptr<QuietThread>> threads;
  for (int i = 0; i < more; ++i) threads.push_back(std::make_unique<QuietThread>());
  const auto seen = static_cast<int>(par::preflight().threads.size());
  if (seen != more) {
    std::printf("# %d threads, and not %d\n", seen, more);
    std::fflush(stdout);
    ::_exit(1);
  }
  if (more > 0) ::_exit(testing::error_of([] { const par::Snapshot snapshot; }) ? 0 : 2);
  par::Snapshot snapshot;
  par::Reactor loop;
  auto f = par::run(
      loop, [](int x) { return x + static_cast<int>(par::preflight().threads.size()); },
      testing::in(snapshot));
  ::_exit(testing::ask(loop, f, 7) == 7 ? 0 : 3);
}

}  // namespace

void testing_main_init() {
  if (const char* pids = ::getenv(old_snapshots)) reap_old_snapshots(pids);
  if (const char* number = ::getenv(more_threads)) look_for_threads(std::atoi(number));
}

namespace {

// Frames are laid out in steps of 16 bytes.
constexpr std::size_t page = 4096;
constexpr std::size_t step = 16;

[[gnu::noinline]] pid_t take_deeper_by(std::size_t size) {
  auto* const rest = static_cast<volatile char*>(::alloca(size + step));
  *rest = 0;
  const par::Snapshot snapshot;
  BOOST_TEST(snapshot.alive());
  return snapshot.pid();
}

// The lowest free descriptor number, and so the number of open descriptors if there is no gap.
int lowest_free_descriptor() {
  const int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::close(fd);
  return fd;
}

void limit_to(__rlimit_resource what, rlim_t most) {
  const rlimit limit{most, most};
  if (::setrlimit(what, &limit) != 0) throw std::runtime_error("setrlimit");
}

void close_all_from(int fd) {
  for (int end = fd + 256; fd < end; ++fd) ::close(fd);
}

std::size_t address_space() {
  std::ifstream file("/proc/self/statm");
  std::size_t pages = 0;
  file >> pages;
  return pages * page;
}

// The errno of the error when a snapshot is taken; -1: another error, 0: none.
int why_no_snapshot(const par::SnapshotOptions& options = {}) {
  try {
    par::init(options);
  } catch (const par::Error& error) {
    return error.code() == par::Errc::spawn_failed ? error.os_error() : -1;
  }
  return 0;
}

}  // namespace

// One program of 256 had this fault by chance, and then in most of its snapshots: a snapshot whose stack began at the
// end of a page wrote a byte beyond its own data there.  AddressSanitizer detects it: --enable-audit.
BOOST_AUTO_TEST_CASE(a_snapshot_starts_on_any_stack) {
  std::vector<pid_t> taken;
  for (std::size_t size = 0; size < page; size += step) taken.push_back(take_deeper_by(size));
  for (const pid_t pid : taken) BOOST_TEST(testing::gone(pid));
  const par::Snapshot next;  // closes the sockets of ended snapshots
}

// The snapshot keeps one of the two descriptors of the control socket, and needs three more: for its signals and its
// rendezvous socket.
BOOST_AUTO_TEST_CASE(a_snapshot_without_the_descriptors_that_it_needs_is_refused_by_name) {
  for (const rlim_t left : {rlim_t{2}, rlim_t{3}}) {
    const int status = testing::elsewhere([left] {
      close_all_from(3);
      limit_to(RLIMIT_NOFILE, static_cast<rlim_t>(lowest_free_descriptor()) + left);
      return why_no_snapshot() == EMFILE ? 0 : 1;
    });
    BOOST_TEST(status == 0, "with " << left << " left: " << status);
  }
}

BOOST_AUTO_TEST_CASE(a_failed_snapshot_does_not_prevent_the_next_one) {
  const int status = testing::elsewhere([] {
    close_all_from(3);
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    rlimit few = before;
    few.rlim_cur = static_cast<rlim_t>(lowest_free_descriptor()) + 2;
    if (::setrlimit(RLIMIT_NOFILE, &few) != 0 || why_no_snapshot() != EMFILE) return 1;
    const std::size_t open = testing::count_descriptors();
    if (::setrlimit(RLIMIT_NOFILE, &before) != 0 || why_no_snapshot() != 0) return 2;
    // Its control socket, and an end of its rendezvous socket.
    if (testing::count_descriptors() != open + 2) return 3;
    return testing::children_of(::getpid()).size() == 1 ? 0
                                                        : 4;  // the one of the first try is gone
  });
  BOOST_TEST(status == 0);
}

// The tables that it shares with children are mapped in the program, before.
BOOST_AUTO_TEST_CASE(a_snapshot_without_memory_for_its_tables_is_refused_by_name) {
  if (testing::sanitized) return testing::skip("a sanitizer needs its address space");
  bool in_the_snapshot = false;
  bool in_the_program = false;
  constexpr std::size_t step_of_limit = std::size_t{1} << 20;
  for (std::size_t more = 0; more < 100 * step_of_limit; more += step_of_limit) {
    const int status = testing::elsewhere([more] {
      limit_to(RLIMIT_AS, address_space() + more);
      try {
        par::init();
      } catch (const par::Error& error) {
        if (error.code() != par::Errc::spawn_failed || error.os_error() != ENOMEM) return 1;
        return std::string(error.what()).find("could not start") == std::string::npos ? 2 : 3;
      } catch (const std::bad_alloc&) {
        return 2;
      }
      return 0;
    });
    BOOST_TEST((status == 0 || status == 2 || status == 3), "with " << more << ": " << status);
    in_the_program = in_the_program || status == 2;
    in_the_snapshot = in_the_snapshot || status == 3;
    if (status == 0) break;
  }
  BOOST_TEST(in_the_program);
  BOOST_TEST(in_the_snapshot);
}

BOOST_AUTO_TEST_CASE(a_snapshot_that_dies_before_it_serves_is_an_error_with_its_cause) {
  const int status = testing::elsewhere([] {
    limit_to(RLIMIT_CORE, 0);
    ::pthread_atfork(nullptr, nullptr, [] { ::raise(SIGKILL); });
    try {
      par::init();
    } catch (const par::Error& error) {
      if (error.code() != par::Errc::spawn_failed) return 1;
      return std::string(error.what()).find("SIGKILL") == std::string::npos ? 2 : 0;
    }
    return 3;
  });
  BOOST_TEST(status == 0);
}

// ---- pid namespaces ----

namespace {

constexpr int not_allowed = 98;

bool skipped(int status) {
  if (status == not_allowed) testing::skip("no pid namespace can be made here");
  return status == not_allowed;
}

bool write_file(const char* path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  return file.good();
}

// This user and its group keep their numbers in the user namespace that this makes.
bool unshare_as_user(int flags) {
  const auto kept = [](unsigned number) {
    return std::to_string(number) + ' ' + std::to_string(number) + " 1\n";
  };
  const std::string user = kept(::geteuid());
  const std::string group = kept(::getegid());
  return ::unshare(flags | CLONE_NEWUSER) == 0 && write_file("/proc/self/uid_map", user) &&
         write_file("/proc/self/setgroups", "deny") && write_file("/proc/self/gid_map", group);
}

// Processes that this process forks from now on are in a new pid namespace.
bool separate_children() {
  return ::geteuid() == 0 ? ::unshare(CLONE_NEWPID) == 0 : unshare_as_user(CLONE_NEWPID);
}

// Runs `f` in a process whose children are in a pid namespace that cannot see it.  There is no search for leaks: a
// sanitizer forks for it, and does not find its fork.
template <class F>
int elsewhere_than_children(F f) {
  return testing::elsewhere([&]() -> int { ::_exit(separate_children() ? f() : not_allowed); });
}

// Runs `f` in process 1 of a pid namespace, with a /proc that has the numbers of another one.
template <class F>
int elsewhere_as_process_1(F f) {
  return elsewhere_than_children([&] { return testing::elsewhere(f); });
}

using Numbers = std::vector<int>;

// The numbers in the namespace in which the processes run.
Numbers numbers_of_a_family(int) {
  Numbers numbers{::getpid(), ::getppid()};
  auto inner = par::run(par::this_reactor(), [](int) { return ::getpid(); });
  inner(0, [&](par::Result<int> r) { numbers.push_back(r.value_or(-1)); });
  par::this_reactor().run();
  return numbers;
}

Numbers answer_of_a_family(par::Reactor& loop, pid_t& child) {
  auto far = par::run(loop, numbers_of_a_family);
  Numbers answer;
  far(0, [&](par::Result<Numbers> r) {
    child = far.pid();
    if (r) answer = *r;
  });
  loop.run();
  return answer;
}

// The end of an idle child, after `end` was applied to it.
template <class F>
par::ExitStatus end_of_a_child(par::Reactor& loop, F end) {
  auto process = par::process(loop, [](par::Pipe<int, int> pipe) { pipe.on_end([] {}); });
  par::ExitStatus how;
  process.on_exit([&](const par::ExitStatus& status) { how = status; });
  process.on_error([](const par::Error&) {});
  const auto known = [&] {
    loop.run_for(std::chrono::milliseconds(1));
    return process.pid() != 0;
  };
  if (!testing::eventually(known)) throw std::logic_error("its number is not known");
  const pid_t pid = process.pid();
  end(process);
  loop.run();
  if (how.pid != pid) throw std::logic_error("it ended by another number");
  return how;
}

}  // namespace

BOOST_AUTO_TEST_CASE(process_1_takes_a_snapshot_with_the_proc_of_its_host) {
  const int status = elsewhere_as_process_1([] {
    if (::getpid() != 1) return 1;
    par::init();
    par::Reactor loop;
    pid_t child = 0;
    const Numbers answer = answer_of_a_family(loop, child);
    const pid_t snapshot = par::default_snapshot().pid();
    if (answer != Numbers{child, snapshot, answer.back()} || answer.back() <= child) return 2;
    par::PoolOptions options;
    options.max_rss_growth = 1;  // it would be the growth of an unrelated process
    try {
      static_cast<void>(par::pool(
          loop, [](int x) { return x; }, options));
    } catch (const par::Error& error) {
      return error.code() == par::Errc::refused ? 0 : 3;
    }
    return 4;
  });
  if (!skipped(status)) BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_thread_of_process_1_is_found_with_the_proc_of_its_host) {
  const int status = elsewhere_as_process_1([] {
    bool over = false;
    pthread_t thread{};
    const auto wait = [](void* flag) -> void* {
      while (!__atomic_load_n(static_cast<bool*>(flag), __ATOMIC_ACQUIRE)) ::sched_yield();
      return nullptr;
    };
    if (::pthread_create(&thread, nullptr, wait, &over) != 0) return 1;
    const std::size_t seen = par::preflight().threads.size();
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    ::pthread_join(thread, nullptr);
    return seen == 1 ? 0 : 2;
  });
  if (!skipped(status)) BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_snapshot_in_a_pid_namespace_of_its_own_serves) {
  const int status = elsewhere_than_children([] {
    par::SnapshotOptions two;
    two.replicas = 2;
    par::init(two);
    par::Reactor loop;
    pid_t child = 0;
    const Numbers answer = answer_of_a_family(loop, child);
    if (answer.size() != 3 || answer[1] > 2 || answer[2] <= answer[0]) return 1;
    if (child <= 0 || child == answer[0]) return 2;  // its number here
    return 0;
  });
  if (!skipped(status)) BOOST_TEST(status == 0);
}

// In a user namespace that does not map the user, the kernel accepts no other number for it.
BOOST_AUTO_TEST_CASE(a_user_without_a_mapped_id_gets_no_process_ids_of_children) {
  const int status = testing::elsewhere([]() -> int {
    if (::unshare(CLONE_NEWPID | CLONE_NEWUSER) != 0) ::_exit(not_allowed);
    par::init();
    par::Reactor loop;
    pid_t child = -1;
    const Numbers answer = answer_of_a_family(loop, child);
    ::_exit(answer.size() == 3 && child == 0 ? 0 : 1);
  });
  if (!skipped(status)) BOOST_TEST(status == 0);
}

// The kernel translates process ids only for processes with more privileges.
BOOST_AUTO_TEST_CASE(a_process_id_that_the_kernel_does_not_translate_is_unknown) {
  if (::geteuid() != 0) return testing::skip("needs root, to be an ordinary user then");
  const int status = elsewhere_than_children([] {
    constexpr uid_t somebody_else = 65534;
    if (::setresuid(somebody_else, somebody_else, somebody_else) != 0) return 1;
    par::init();
    par::Reactor loop;
    pid_t child = -1;
    const Numbers answer = answer_of_a_family(loop, child);
    return answer.size() == 3 && child == 0 ? 0 : 2;
  });
  if (!skipped(status)) BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(children_in_their_own_pid_namespace_are_ended_by_their_outer_ids) {
  const int status = elsewhere_than_children([] {
    par::init();
    par::Reactor loop;
    const par::ExitStatus terminated =
        end_of_a_child(loop, [](auto& process) { process.terminate(); });
    if (terminated.cause != par::Cause::terminated) return 1;
    const par::ExitStatus killed =
        end_of_a_child(loop, [](auto& process) { ::kill(process.pid(), SIGKILL); });
    if (!killed.signalled() || killed.signal() != SIGKILL) return 2;
    const par::ExitStatus lost =
        end_of_a_child(loop, [](auto&) { ::kill(par::default_snapshot().pid(), SIGKILL); });
    return lost.cause == par::Cause::snapshot_lost && !testing::process_exists(lost.pid) ? 0 : 3;
  });
  if (!skipped(status)) BOOST_TEST(status == 0);
}

// The copy holds the program's end of the control socket, so the socket has no end of file, and the program has no
// number in the namespace of its snapshot.
BOOST_AUTO_TEST_CASE(a_snapshot_in_a_pid_namespace_of_its_own_ends_with_its_program,
                     *testing::guarantee("5.1")) {
  pid_t& snapshot = testing::shared<pid_t>();
  pid_t& copy = testing::shared<pid_t>();
  const int status = elsewhere_than_children([&] {
    par::init();
    const pid_t before = ::fork();
    if (before == 0)
      for (;;) ::pause();
    copy = before;
    snapshot = par::default_snapshot().pid();
    ::raise(SIGKILL);
    return 0;
  });
  if (skipped(status)) return;
  BOOST_TEST(status == 100 + SIGKILL);
  // The kernel ends all processes with process 1, which remains until they are reaped: here, as this process adopts
  // orphans.
  BOOST_TEST(testing::gone(copy));
  ::waitpid(copy, nullptr, 0);
  BOOST_TEST(testing::gone(snapshot));
}

BOOST_AUTO_TEST_CASE(frozen_replicas_in_another_pid_namespace_are_refused_by_name) {
  if (testing::sanitized) return testing::skip("a sanitizer's memory cannot be frozen");
  const int status = elsewhere_than_children([] {
    par::SnapshotOptions options;
    options.freeze = true;
    options.replicas = 2;
    try {
      par::init(options);
    } catch (const par::Error& error) {
      return error.code() == par::Errc::spawn_failed && error.os_error() == EINVAL ? 0 : 1;
    }
    return 2;
  });
  if (!skipped(status)) BOOST_TEST(status == 0);
}

// ---- a snapshot and the other children of its program ----

BOOST_AUTO_TEST_CASE(waiting_for_the_own_process_group_does_not_wait_for_the_snapshot) {
  const int status = testing::elsewhere([] {
    par::init();
    for (int i = 0; i < 3; ++i)
      if (::fork() == 0) ::_exit(i);
    int ended = 0;
    while (::waitpid(0, nullptr, 0) > 0) ++ended;
    if (errno != ECHILD || ended != 3) return 1;
    return testing::process_exists(par::default_snapshot().pid()) ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_program_that_executes_itself_can_reap_its_old_snapshots) {
  const int status = testing::elsewhere([] {
    par::SnapshotOptions two;
    two.replicas = 2;
    par::init(two);
    std::string pids;
    for (const pid_t pid : par::default_snapshot().pids()) pids += std::to_string(pid) + ' ';
    ::setenv(old_snapshots, pids.c_str(), 1);
    ::execl("/proc/self/exe", program_invocation_short_name, nullptr);
    return 1;
  });
  BOOST_TEST(status == 0);
}

// ---- state that a snapshot takes from the program ----

namespace {

// The arguments that ps(1) shows, only the first one.
std::string title_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline");
  std::string title;
  std::getline(file, title, '\0');
  return title;
}

std::size_t shared_kilobytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.compare(0, 9, "RssShmem:") == 0) return std::stoul(line.substr(9));
  return 0;
}

}  // namespace

// As in programs that show their state in place of their arguments.
BOOST_AUTO_TEST_CASE(the_title_begins_with_the_program_whatever_its_arguments_are) {
  const int status = testing::elsewhere([] {
    const std::string name = program_invocation_short_name;
    for (char* at = program_invocation_name; *at != '\0'; ++at) *at = at[1] == '\0' ? '/' : 'x';
    par::init();
    const std::string title = title_of(par::default_snapshot().pid());
    if (title == title_of(::getpid())) return 77;
    return title == name + ": snapshot" ? 0 : 1;
  });
  if (status == 77) return testing::skip("the kernel shows no titles");
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(the_title_begins_with_the_name_the_program_gave_itself) {
  const int status = testing::elsewhere([] {
    static char chosen[] = "chosen";
    program_invocation_short_name = chosen;
    par::init();
    const std::string title = title_of(par::default_snapshot().pid());
    if (title == title_of(::getpid())) return 77;
    return title == "chosen: snapshot" ? 0 : 1;
  });
  if (status == 77) return testing::skip("the kernel shows no titles");
  BOOST_TEST(status == 0);
}

// The memory shared with children is large, and most of it is never touched.
BOOST_AUTO_TEST_CASE(a_program_with_locked_memory_does_not_pay_for_unused_tables) {
  if (testing::sanitized) return testing::skip("a sanitizer's memory cannot be locked");
  const int status = testing::elsewhere([] {
    if (::mlockall(MCL_CURRENT | MCL_FUTURE) != 0) return 77;
    const std::size_t before = shared_kilobytes();
    par::init();
    par::Reactor loop;
    auto far = par::run(loop, [](int x) { return x + 1; });
    int answer = 0;
    far(1, [&](par::Result<int> r) { answer = r.value(); });
    loop.run();
    if (answer != 2) return 1;
    return shared_kilobytes() - before < 1024 ? 0 : 2;
  });
  if (status == 77) return testing::skip("memory cannot be locked here");
  BOOST_TEST(status == 0);
}

namespace {

using testing::error_of;
using testing::has;
using testing::misuse_of;

std::string refusal() {
  const auto error = error_of([] { const par::Snapshot snapshot; });
  if (!error || error->code() != par::Errc::refused) return "not refused";
  return error->what();
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_refusal_of_a_snapshot_says_what_to_do_about_a_thread) {
  std::promise<pid_t> started;
  std::promise<void> leave;
  std::thread thread([&] {
    ::pthread_setname_np(::pthread_self(), "writer");
    started.set_value(::gettid());
    leave.get_future().wait();
  });
  const pid_t tid = started.get_future().get();
  const std::string text = refusal();
  leave.set_value();
  thread.join();
  BOOST_TEST(text == "refused: thread " + std::to_string(tid) +
                         " (writer) would be missing in the snapshot: take the snapshot before the "
                         "thread starts, or use Preflight::warn");
}

// A program with ThreadSanitizer could take no snapshot.
BOOST_AUTO_TEST_CASE(the_thread_of_a_sanitizer_is_no_thread_of_the_program) {
  if (testing::sanitized)
    return testing::skip("a sanitizer must be loaded before any other library");
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  for (const char* more : {"0", "1", "2"}) {
    const int status = testing::elsewhere([&] {
      ::setenv(more_threads, more, 1);
      ::setenv("LD_PRELOAD", testing::library_path("tsan_thread.so").c_str(), 1);
      ::execl(self.c_str(), self.c_str(), nullptr);
      return 97;
    });
    BOOST_TEST_CONTEXT(more << " more threads") BOOST_TEST(status == 0);
  }
}

BOOST_AUTO_TEST_CASE(a_thread_that_blocks_all_signals_is_a_thread_of_the_program) {
  const QuietThread thread;
  BOOST_TEST(par::preflight().threads.size() == 1u);
}

BOOST_AUTO_TEST_CASE(the_refusal_of_a_snapshot_says_what_to_do_about_an_event_loop) {
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  const std::string text = refusal();
  ::close(epoll);
  BOOST_TEST(text == "refused: descriptor " + std::to_string(epoll) +
                         " (eventpoll) would be shared with the snapshot: take the snapshot before "
                         "the event loop is created, or close the descriptor, or use "
                         "Preflight::warn");
  const par::Reactor loop;
  BOOST_TEST(refusal() ==
             "refused: the program has a Reactor: take the snapshot before the Reactor is created, "
             "or after it is destroyed");
}

BOOST_AUTO_TEST_CASE(errors_without_a_default_snapshot_say_what_to_do) {
  par::Reactor loop;
  const auto call = error_of([&] { static_cast<void>(par::run(loop, [](int x) { return x; })); });
  BOOST_REQUIRE(call.has_value());
  BOOST_TEST(call->what() ==
             "no snapshot: call evparallel::init() in main(), before the first Reactor and before "
             "threads start, or name a Snapshot in Options::snapshot");
  const auto handle = error_of([] { par::default_snapshot(); });
  BOOST_REQUIRE(handle.has_value());
  BOOST_TEST(handle->what() ==
             "no snapshot: call evparallel::init() in main(), before the first Reactor and before "
             "threads start");
}

BOOST_AUTO_TEST_CASE(a_second_init_says_what_to_do) {
  const int status = testing::elsewhere([] {
    par::init();
    return has(misuse_of([] { par::init(); }),
               "init() has already been called: call it once, and "
               "construct a Snapshot for each further one")
               ? 0
               : 1;
  });
  BOOST_TEST(status == 0);
}

// init() in a child said that it had already been called.
BOOST_AUTO_TEST_CASE(a_snapshot_in_a_child_is_refused_with_what_to_do) {
  std::vector<std::string> texts;
  {
    par::Snapshot snapshot;
    par::Reactor loop;
    par::Options options;
    options.snapshot = &snapshot;
    auto refused = par::run(
        loop,
        [](bool with_init) {
          return misuse_of([with_init] {
            if (with_init)
              par::init();
            else
              par::Snapshot();
          });
        },
        options);
    for (const bool with_init : {false, true})
      refused(with_init, [&](par::Result<std::string> r) { texts.push_back(r.value()); });
    loop.run();
  }
  testing::close_abandoned();
  BOOST_REQUIRE(texts.size() == 2U);
  for (const std::string& text : texts)
    BOOST_TEST(text ==
               "evparallel: a child cannot take a snapshot: take it in the program, before the "
               "child is started; run() and process() in a child fork from the snapshot of the "
               "child");
}
