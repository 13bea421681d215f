// limits.cpp - step 6: cancel, deadlines, limits, and reports of crashes.
#include <evparallel/evparallel.hpp>

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

static void report(const char* what, const par::Result<int>& answer) {
  if (answer)
    std::printf("%s: %d\n", what, *answer);
  else
    std::printf("%s: %s\n", what, answer.error().what());
}

// A task that checks whether somebody still waits for its answer.
static int patient(int milliseconds) {
  for (int i = 0; i < milliseconds && !par::this_call::cancelled(); ++i) ::usleep(1000);
  return milliseconds;
}

// A task that does not check.
static int stubborn(int seconds) {
  for (int i = 0; i < seconds; ++i) ::sleep(1);
  return seconds;
}

static void cancel_and_deadline(par::Reactor& loop) {
  auto remote = par::run(loop, patient);
  const par::Call call = remote(60000, [](par::Result<int> r) { report("cancelled", r); });
  remote(60000, [](par::Result<int> r) { report("too late", r); }).set_deadline(100ms);
  remote(1, [](par::Result<int> r) { report("in time", r); });
  const par::Timer timer = loop.after(50ms, [call] { call.cancel(); });
  loop.run();
}

// The busy child is killed, and the call behind goes to another one.
static void end_the_child(par::Reactor& loop) {
  par::Options options;
  options.grace = 200ms;
  auto remote = par::run(loop, stubborn, options);
  remote(60, [](par::Result<int> r) { report("stubborn", r); }).set_deadline(100ms);
  remote(0, [](par::Result<int> r) { report("the next call", r); });
  loop.run();
}

static void limit_memory(par::Reactor& loop) {
  par::Options options;
  options.limits.memory = std::size_t{64} << 20;
  options.limits.cpu = 10s;
  options.nice = 5;
  auto remote = par::run(
      loop,
      [](std::size_t megabytes) {
        const std::vector<char> block(megabytes << 20, 'x');
        return static_cast<int>(std::count(block.begin(), block.end(), 'x') >> 20);
      },
      options);
  remote(16, [](par::Result<int> r) { report("16 MB", r); });
  remote(1024, [](par::Result<int> r) { report("1024 MB", r); });
  loop.run();
}

static int divide(int n) {
  std::fprintf(stderr, "the divisor is %d\n", n);
  if (n == 0) std::abort();
  return 100 / n;
}

// The error of the call contains the output of the child and the place of the crash.
static void report_crash(par::Reactor& loop) {
  par::Options options;
  options.backtrace = true;
  options.err = par::Stdio::capture();
  auto remote = par::run(loop, divide, options);
  remote(0, [](par::Result<int> r) {
    if (r) return;
    std::printf("crash: %s\n", r.error().what());
    std::printf("  last words: %s\n", r.error().last_words().c_str());
    const std::vector<par::StackFrame>& frames = r.error().backtrace();
    for (std::size_t i = 0; i < std::min<std::size_t>(frames.size(), 4); ++i)
      std::printf("  #%zu %s\n", i, frames[i].describe().c_str());
  });
  loop.run();
}

int main() {
  par::init();
  par::Reactor loop;
  cancel_and_deadline(loop);
  end_the_child(loop);
  limit_memory(loop);
  report_crash(loop);
}
