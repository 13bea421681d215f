// chat.cpp - coroutines on both sides of a process: questions and answers in the order in which they are written.
#include <evparallel/coroutine.hpp>
#include <evparallel/evparallel.hpp>

#include <chrono>
#include <cstdio>
#include <string>

namespace par = evparallel;
using namespace std::chrono_literals;

// In the child, which ends when this does.
static par::Task<void> answer(par::Pipe<std::string, std::string> pipe) {
  co_await par::sent(pipe, "Who is there?");
  int count = 0;
  while (const auto line =
             co_await par::next(pipe)) {  // nothing: the parent has closed its direction
    ++count;
    co_await par::sleep(par::this_reactor(), 10ms);  // it thinks
    co_await par::sent(pipe, line->back() == '?' ? "Yes." : "I see.");
  }
  co_await par::sent(pipe, "You have said " + std::to_string(count) + " things. Good bye.");
}

static par::Task<void> talk(par::Reactor& loop) {
  auto other = par::process(loop, answer);
  for (const char* line : {"It is me, the parent.", "Do you hear me?", "That is all."}) {
    if (const auto said = co_await par::next(other)) std::printf("child:  %s\n", said->c_str());
    std::printf("parent: %s\n", line);
    co_await par::sent(other, line);
  }
  other.close();
  while (const auto said = co_await par::next(other)) std::printf("child:  %s\n", said->c_str());
  std::printf("%s\n",
              (co_await par::ended(other)).exited() ? "The child has ended." : "It was killed.");
}

int main() {
  par::init();
  par::Reactor loop;
  par::wait(loop, talk(loop));
}
