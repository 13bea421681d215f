// surroundings.cpp - a system without /proc: what can be known is known, and everything works.
#include "elsewhere.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>

namespace par = evparallel;

namespace {

constexpr int not_possible = 77;

// Hides /proc from this process and its children.
bool hide_proc() {
  const int flags = ::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
  return ::unshare(flags) == 0 &&
         ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("none", "/proc", "tmpfs", 0, nullptr) == 0 && ::access("/proc/self", F_OK) != 0;
}

// Runs `f` where there is no /proc; what it returns is 0 if all is well.
void without_proc(int (*f)()) {
  static int (*what)() = nullptr;
  what = f;
  const int status = testing::elsewhere([] { return hide_proc() ? what() : not_possible; });
  if (status == not_possible) return testing::skip("no mount namespace can be made here");
  BOOST_TEST(status == 0);
}

}  // namespace

BOOST_AUTO_TEST_CASE(without_proc_everything_works) {
  without_proc([] {
    const par::PreflightReport report = par::preflight();
    if (report.descriptors_known || report.timers_known || !report.threads.empty() ||
        report.in_the_way())
      return 1;
    par::init();
    par::Reactor loop;
    par::Options options;
    options.limits.memory = std::size_t{1} << 40;  // cannot be counted from here: not limited
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

BOOST_AUTO_TEST_CASE(without_proc_threads_are_seen_all_the_same) {
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
      result =
          error.code() == par::Errc::refused && text.find("/proc is not there") != std::string::npos
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

BOOST_AUTO_TEST_CASE(without_proc_a_kill_has_its_cause) {
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
