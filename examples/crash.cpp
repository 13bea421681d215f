// crash.cpp - a child may throw, exit or crash: the program hears what has happened, and goes on.
#include <evparallel/evparallel.hpp>

#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace par = evparallel;

std::string work(const std::string& how) {
  if (how == "throw") throw std::runtime_error("the disk is on fire");
  if (how == "exit") std::exit(3);
  // Not a write through a null pointer: a compiler may make of that what it likes.
  if (how == "crash") std::raise(SIGSEGV);
  return "all is well";
}

// Returns 0 if the calls have ended as they were meant to.
int calls(par::Reactor& loop) {
  struct Trial {
    const char* how;
    par::Errc expected;  // Errc{}: an answer
  };
  const Trial trials[] = {{"throw", par::Errc::remote_exception},  // the child lives on
                          {"exit", par::Errc::child_exited},
                          {"crash", par::Errc::child_killed},  // not the one that has exited
                          {"work", par::Errc{}}};              // nor the one that has crashed
  int surprises = 0;
  auto remote = par::run(loop, work);
  for (const Trial& trial : trials) {
    remote(trial.how, [&](par::Result<std::string> answer) {
      const par::Errc code = answer ? par::Errc{} : answer.error().code();
      if (answer) {
        std::printf("%-7sanswer: %s\n", trial.how, answer->c_str());
      } else {
        const par::Error& error = answer.error();
        std::printf("%-7swhat(): %s\n", trial.how, error.what());
        if (error.exit())
          std::printf("%-7sexit(): %s; cause: %s\n", "", error.exit()->describe().c_str(),
                      par::to_string(error.exit()->cause));
      }
      if (code != trial.expected) ++surprises;
    });
    loop.run();  // until it is answered: a call behind one that crashes would hear of that, too
  }
  return surprises;
}

// The same for a process.  It says something before it dies: nothing of that is lost.
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

int main() {
  // Crashes that are meant leave no core files.
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);

  par::init();
  par::Reactor loop;
  const int surprises = calls(loop) + conversation(loop);
  std::puts(surprises == 0 ? "and the program goes on" : "that was not what was meant to happen");
  return surprises == 0 ? 0 : 1;
}
