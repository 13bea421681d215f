// errors.cpp - step 2: a task throws, exits, or crashes.
#include <evparallel/evparallel.hpp>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace par = evparallel;

static int work(const std::string& how) {
  if (how == "throw") throw std::out_of_range("no such page");
  if (how == "exit") std::exit(3);
  if (how == "crash") std::abort();
  return 42;
}

static void report(const std::string& how, const par::Result<int>& answer) {
  if (answer) {
    std::printf("%s: %d\n", how.c_str(), *answer);
    return;
  }
  const par::Error& error = answer.error();
  std::printf("%s: %s\n", how.c_str(), error.what());
  std::printf("  code %s, delivery %s\n", to_string(error.code()), to_string(error.delivery()));
  switch (error.code()) {
    case par::Errc::remote_exception:
      std::printf("  the exception is a %s; the child lives on\n", error.remote_type().c_str());
      break;
    case par::Errc::child_exited: std::printf("  exit status %d\n", error.exit()->code()); break;
    case par::Errc::child_killed:
      std::printf("  signal %d, cause %s\n", error.exit()->signal(),
                  to_string(error.exit()->cause));
      break;
    default: break;
  }
}

// The task is called a second time, since the first child dies in it.
static void repeat_a_call(par::Reactor& loop) {
  par::Options options;
  options.retries = 1;
  options.idempotent = true;
  auto remote = par::run(
      loop,
      [](const std::string& file) {
        if (std::remove(file.c_str()) == 0) std::abort();  // the first time
        return 42;
      },
      options);

  char file[] = "/tmp/evparallel-tutorial-XXXXXX";
  const par::Fd fd(::mkstemp(file));
  if (!fd) throw std::runtime_error("no temporary file");
  remote(file, [](par::Result<int> answer) { report("crash once", answer); });
  loop.run();
}

int main() {
  try {
    par::Reactor loop;
    auto early = par::run(loop, work);
  } catch (const par::Error& error) {  // set-up throws
    std::printf("no init(): %s\n", to_string(error.code()));
  }

  par::init();
  par::Reactor loop;
  auto remote = par::run(loop, work);
  for (const std::string how : {"return", "throw", "exit", "crash", "return"}) {
    remote(how, [how](par::Result<int> answer) { report(how, answer); });
    loop.run();
  }
  repeat_a_call(loop);

  remote.close();
  try {
    remote("return", [](par::Result<int>) {});
  } catch (const std::logic_error& error) {  // misuse throws, too
    std::printf("after close(): %s\n", error.what());
  }
}
