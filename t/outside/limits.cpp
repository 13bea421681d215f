// limits.cpp - bounds: descriptors, processes, memory; and a system without /proc.
#include "elsewhere.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <thread>

namespace par = evparallel;

namespace {

constexpr uid_t ordinary_user = 54321;  // no other processes count against its limits

void limit_descriptors(rlim_t most) {
  const rlimit limit{most, most};
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) throw std::runtime_error("setrlimit");
}

void set_soft_limit(pid_t pid, __rlimit_resource what, rlim_t soft) {
  rlimit limit;
  ::prlimit(pid, what, nullptr, &limit);
  limit.rlim_cur = soft;
  if (::prlimit(pid, what, &limit, nullptr) != 0) throw std::runtime_error("prlimit");
}

// A program that inherits descriptors has less room than the test assumes.
void close_strange_descriptors() {
  if (DIR* directory = ::opendir("/proc/self/fd")) {
    std::vector<int> open;
    while (const dirent* entry = ::readdir(directory)) {
      const int fd = std::atoi(entry->d_name);
      if (fd > 2 && fd != ::dirfd(directory)) open.push_back(fd);
    }
    ::closedir(directory);
    for (const int fd : open) ::close(fd);
  }
}

void become_ordinary_user() {
  if (::geteuid() == 0 && (::setgid(ordinary_user) != 0 || ::setuid(ordinary_user) != 0))
    throw std::runtime_error("setuid");
}

int run_once(par::Reactor& loop, int x) {
  int answer = -1;
  auto f = par::run(loop, [](int y) { return y + 1; });
  f(x, [&](par::Result<int> r) { answer = r.value(); });
  loop.run();
  return answer;
}

// A thousand runs, and bursts of six at once.
int a_thousand_runs() {
  close_strange_descriptors();
  limit_descriptors(20);
  par::init();
  par::Reactor loop;
  for (int i = 0; i < 1000; ++i)
    if (run_once(loop, i) != i + 1) return 1;
  for (int i = 0; i < 50; ++i) {
    std::vector<par::Remote<int(int)>> all;
    int right = 0;
    for (int k = 0; k < 6; ++k) {
      all.push_back(par::run(loop, [](int y) { return -y; }));
      all.back()(k, [&right, k](par::Result<int> r) { right += r.value() == -k; });
    }
    loop.run();
    if (right != 6) return 2;
  }
  return 0;
}

std::size_t resident_kilobytes(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.compare(0, 6, "VmRSS:") == 0) return std::stoul(line.substr(6));
  return 0;
}

}  // namespace

BOOST_AUTO_TEST_CASE(twenty_descriptors_are_enough_for_a_thousand_runs) {
  testing::limit(1200);
  BOOST_TEST(testing::elsewhere(a_thousand_runs) == 0);
}

BOOST_AUTO_TEST_CASE(twenty_descriptors_are_enough_for_an_ordinary_user) {
  testing::limit(1200);
  BOOST_TEST(testing::elsewhere([] {
               become_ordinary_user();
               return a_thousand_runs();
             }) == 0);
}

BOOST_AUTO_TEST_CASE(a_lack_of_descriptors_in_the_parent_is_reported_and_passes) {
  const int status = testing::elsewhere([] {
    close_strange_descriptors();
    par::init();
    par::Reactor loop;
    std::vector<par::Remote<int(int)>> all;
    limit_descriptors(20);
    int error = 0;
    try {
      for (int i = 0; i < 100; ++i) all.push_back(par::run(loop, [](int y) { return y; }));
    } catch (const par::Error& e) {
      if (e.code() == par::Errc::spawn_failed) error = e.os_error();
    }
    if (error != EMFILE) return 1;
    all.clear();
    return run_once(loop, 1) == 2 ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_lack_of_descriptors_in_the_snapshot_is_reported_and_passes) {
  const int status = testing::elsewhere([] {
    close_strange_descriptors();
    par::init();
    const pid_t snapshot = par::default_snapshot().pid();
    par::Reactor loop;
    if (run_once(loop, 1) != 2) return 1;
    set_soft_limit(snapshot, RLIMIT_NOFILE, 5);
    auto f = par::run(loop, [](int y) { return y; });
    std::optional<par::Error> error;
    f(1, [&](par::Result<int> r) {
      if (!r) error = r.error();
    });
    loop.run();
    if (!error) return 2;
    if (error->code() != par::Errc::spawn_failed || error->os_error() != EMFILE) return 3;
    set_soft_limit(snapshot, RLIMIT_NOFILE, 1000);
    int answer = 0;
    f(5, [&](par::Result<int> r) { answer = r.value(); });
    loop.run();
    return answer == 5 ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_lack_of_processes_is_reported_and_passes) {
  const int status = testing::elsewhere([] {
    become_ordinary_user();
    par::init();
    const pid_t snapshot = par::default_snapshot().pid();
    par::Reactor loop;
    set_soft_limit(snapshot, RLIMIT_NPROC, 1);
    auto p = par::process(loop, [](par::Pipe<int, int>) {});
    auto f = par::run(loop, [](int y) { return y; });
    std::vector<std::string> events;
    p.on_error([&](const par::Error& e) {
      events.push_back(e.os_error() == EAGAIN ? par::to_string(e.code()) : "another error");
    });
    p.on_end([&] { events.push_back("end"); });
    p.on_exit([&](const par::ExitStatus& s) { events.push_back(par::to_string(s.cause)); });
    f(1, [&](par::Result<int> r) { events.push_back(par::to_string(r.error().code())); });
    loop.run();
    if (events != std::vector<std::string>{"spawn_failed", "end", "not_started", "spawn_failed"})
      return 1;
    set_soft_limit(snapshot, RLIMIT_NPROC, 1000);
    int answer = 0;
    f(5, [&](par::Result<int> r) { answer = r.value(); });
    loop.run();
    return answer == 5 ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_reader_that_never_reads_costs_bounded_memory_of_the_writer,
                     *testing::guarantee("7.1")) {
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    par::Options options;
    options.high_water = 1 << 20;
    auto p = par::process<par::DefaultIo, par::RawIo>(
        loop,
        [](par::Pipe<std::string, int> pipe) {
          pipe.pause();
          pipe.on_message([](std::string) {});
          pipe.send(1);
        },
        options);
    bool full = false;
    pid_t child = 0;
    p.on_start([&](pid_t pid) { child = pid; });
    p.on_message([&](int) {
      // All messages that send() takes until it returns false; then the loop runs, without any
      // progress.
      for (int i = 0; i < 100000 && !full; ++i) full = !p.send(std::string(10000, 'x'));
    });
    const std::size_t before = resident_kilobytes(::getpid());
    if (!testing::eventually([&] {
          loop.run_for(std::chrono::milliseconds(1));
          return full;
        }))
      return 1;
    loop.run_for(std::chrono::milliseconds(200));
    if (p.buffered() > options.high_water + 20000) return 2;
    if (resident_kilobytes(::getpid()) > before + 8 * 1024) return 3;
    if (resident_kilobytes(child) > before + 8 * 1024) return 4;
    return 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_paused_parent_stops_a_writing_child, *testing::guarantee("7.1")) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  options.high_water = 1 << 16;
  auto p = par::process<par::RawIo, par::RawIo>(
      loop,
      [](par::Pipe<int, std::string> pipe) {
        auto sent = std::make_shared<int>(0);
        const auto fill = [pipe, sent] {
          while (*sent < 2000) {
            ++*sent;
            if (!pipe.send(std::string(10000, 'x'))) return;
          }
          pipe.close();
        };
        pipe.on_drain(fill);
        fill();
      },
      options);
  int received = 0;
  p.on_message([&](std::string s) {
    received += s.size() == 10000;
    if (received == 10) {
      p.pause();
      loop.after(std::chrono::milliseconds(50), [&] { p.resume(); }).detach();
    }
  });
  p.on_end([&] { p.close(); });
  loop.run();
  BOOST_TEST(received == 2000);
}

// ---- a system without /proc: everything works, and unknown values are reported as unknown ----

namespace {

constexpr int not_possible = 77;

// Hides /proc from this process and its children.
bool hide_proc() {
  const int flags = ::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
  return ::unshare(flags) == 0 &&
         ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("none", "/proc", "tmpfs", 0, nullptr) == 0 && ::access("/proc/self", F_OK) != 0;
}

// Runs `f` without /proc; it returns 0 for success.
void without_proc(int (*f)()) {
  static int (*what)() = nullptr;
  what = f;
  const int status = testing::elsewhere([] { return hide_proc() ? what() : not_possible; });
  if (status == not_possible) return testing::skip("no mount namespace can be made here");
  BOOST_TEST(status == 0);
}

}  // namespace

BOOST_AUTO_TEST_CASE(everything_works_without_proc) {
  without_proc([] {
    const par::PreflightReport report = par::preflight();
    if (report.descriptors_known || report.timers_known || !report.threads.empty() ||
        report.in_the_way())
      return 1;
    par::init();
    par::Reactor loop;
    par::Options options;
    options.limits.memory = SIZE_MAX / 4;  // larger than the kernel allows
    auto f = par::run(
        loop, [](int x) { return x + 1; }, options);
    int answer = 0;
    f(1, [&](par::Result<int> r) { answer = r.value(); });
    auto p = par::process(
        loop, [](par::Pipe<int, int> pipe) { pipe.on_message([pipe](int x) { pipe.send(-x); }); });
    int message = 0;
    bool normal = false;
    p.on_message([&](int x) { message = x; });
    p.on_exit([&](const par::ExitStatus& s) { normal = s.cause == par::Cause::normal; });
    p.send(5);
    p.close();
    loop.run();
    return answer == 2 && message == -5 && normal ? 0 : 2;
  });
}

BOOST_AUTO_TEST_CASE(threads_are_found_without_proc) {
  without_proc([] {
    std::mutex lock;
    std::condition_variable changed;
    bool done = false;
    std::thread other([&] {
      std::unique_lock<std::mutex> guard(lock);
      changed.wait(guard, [&] { return done; });
    });
    int result = 1;
    try {
      par::init();
    } catch (const par::Error& error) {
      const std::string text = error.what();
      result = error.code() == par::Errc::refused &&
                       text.find("/proc is not available") != std::string::npos
                   ? 0
                   : 2;
    }
    {
      const std::lock_guard<std::mutex> guard(lock);
      done = true;
    }
    changed.notify_one();
    other.join();
    return result;
  });
}

BOOST_AUTO_TEST_CASE(a_kill_has_its_cause_without_proc) {
  without_proc([] {
    par::init();
    par::Reactor loop;
    auto p = par::process(loop, [](par::Pipe<int, int>) { ::raise(SIGKILL); });
    p.on_error([](const par::Error&) {});
    bool crash = false;
    p.on_exit([&](const par::ExitStatus& s) { crash = s.cause == par::Cause::crash; });
    loop.run();
    return crash ? 0 : 1;
  });
}
