// hello.cpp - a function that runs in a child process, and both kinds of answer.
#include <evparallel/evparallel.hpp>

#include <unistd.h>

#include <cstdio>
#include <stdexcept>
#include <string>

namespace par = evparallel;

static std::string greet(const std::string& name) {
  if (name.empty()) throw std::invalid_argument("the name is empty");
  return "hello, " + name + ", from process " + std::to_string(::getpid());
}

static void print(const par::Result<std::string>& answer) {
  if (answer)
    std::printf("%s\n", answer->c_str());
  else
    std::printf("error %s: %s\n", to_string(answer.error().code()), answer.error().what());
}

int main() {
  par::init();                          // takes the snapshot
  par::Reactor loop;                    // the event loop
  auto remote = par::run(loop, greet);  // forks a child for greet()
  remote("world", print);
  remote("", print);  // greet() throws
  loop.run();         // returns when both calls are answered
}
