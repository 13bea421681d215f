// crash.cpp - a child may throw, exit or crash: the program gets an error with cause and place, and
// continues.
#include <evparallel/evparallel.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace par = evparallel;

namespace {

volatile std::uintptr_t nowhere = 16;  // volatile: the compiler must not see that it is invalid

void read_disk() {
  throw std::runtime_error("the disk is on fire");
}

int follow_pointer() {
  return *reinterpret_cast<const volatile int*>(nowhere);
}

int fall(int depth) {
  if (depth == INT_MAX) return depth;  // never: the stack overflows before
  volatile int step = depth;
  return fall(step + 1) + step;
}

std::string work(const std::string& how) {
  if (how == "throw") read_disk();
  if (how == "exit") std::exit(3);
  if (how == "crash") return std::to_string(follow_pointer());
  if (how == "fall") return std::to_string(fall(0));
  return "all is well";
}

// The innermost functions; if none is known, the reason.
void print_backtrace(const par::Error& error) {
  const std::size_t count = std::min<std::size_t>(error.backtrace().size(), 2);
  if (count == 0) std::printf("%-7s%s", "", error.describe_backtrace().c_str());
  for (std::size_t i = 0; i < count; ++i)
    std::printf("%-7s#%zu %s\n", "", i, error.backtrace()[i].describe().c_str());
}

void print(const char* how, const par::Result<std::string>& answer) {
  if (answer) {
    std::printf("%-7sanswer: %s\n", how, answer->c_str());
    return;
  }
  const par::Error& error = answer.error();
  std::printf("%-7swhat(): %s\n", how, error.what());
  if (error.exit())
    std::printf("%-7sexit(): %s; cause: %s\n", "", error.exit()->describe().c_str(),
                par::to_string(error.exit()->cause));
  print_backtrace(error);
}

// Returns 0 if all calls end as expected.
int calls(par::Reactor& loop) {
  struct Trial {
    const char* how;
    par::Errc expected;  // Errc{}: an answer
    bool crashes = false;
  };
  const Trial trials[] = {{"throw", par::Errc::remote_exception},  // the child lives on
                          {"exit", par::Errc::child_exited},
                          {"crash", par::Errc::child_killed, true},  // not the one that exited
                          {"fall", par::Errc::child_killed, true},   // nor the one that crashed
                          {"work", par::Errc{}}};
  par::Options options;
  options.backtrace = true;
  int surprises = 0;
  auto remote = par::run(loop, work, options);
  for (const Trial& trial : trials) {
    remote(trial.how, [&](par::Result<std::string> answer) {
      print(trial.how, answer);
      const par::Errc code = answer ? par::Errc{} : answer.error().code();
      if (code != trial.expected) ++surprises;
      if (trial.crashes && answer.error().backtrace().empty()) ++surprises;
    });
    loop.run();  // until it is answered: a crash would fail the calls behind it, too
  }
  return surprises;
}

// The same for a process.  It writes output before it dies: none of it is lost.
int conversation(par::Reactor& loop) {
  int surprises = 1;
  auto child = par::process(loop, [](par::Pipe<std::string, std::string> pipe) {
    pipe.on_message([pipe](const std::string& text) {
      pipe.send("you said: " + text);
      std::exit(3);
    });
  });
  child.on_message(
      [](const std::string& text) { std::printf("process on_message: %s\n", text.c_str()); });
  child.on_error(
      [](const par::Error& error) { std::printf("process on_error: %s\n", error.what()); });
  child.on_end([] { std::puts("process on_end"); });
  child.on_exit([&](const par::ExitStatus& status) {
    std::printf("process on_exit: %s; cause: %s\n", status.describe().c_str(),
                par::to_string(status.cause));
    if (status.exited() && status.code() == 3) surprises = 0;
  });
  child.send("hello");
  loop.run();
  return surprises;
}

// Intended crashes write no core files, and an endless recursion fills its stack soon.
void limit_crashes() {
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  rlimit stack{};
  ::getrlimit(RLIMIT_STACK, &stack);
  stack.rlim_cur = std::min<rlim_t>(stack.rlim_cur, 8 << 20);
  ::setrlimit(RLIMIT_STACK, &stack);
}

}  // namespace

int main() {
  limit_crashes();
  par::init();
  par::Reactor loop;
  const int surprises = calls(loop) + conversation(loop);
  std::puts(surprises == 0 ? "the program continues" : "some results are not the expected ones");
  return surprises == 0 ? 0 : 1;
}
