// hello.cpp - step 1: a function that runs in a child process.
#include <evparallel/evparallel.hpp>

#include <unistd.h>

#include <cstdio>

namespace par = evparallel;

static int square(int n) {
  std::printf("square(%d) runs in process %d\n", n, static_cast<int>(::getpid()));
  return n * n;
}

int main() {
  par::init();  // takes the snapshot, before everything else
  std::printf("main() runs in process %d\n", static_cast<int>(::getpid()));

  par::Reactor loop;
  auto remote = par::run(loop, square);
  for (int n = 1; n <= 3; ++n)
    remote(n, [n](par::Result<int> answer) {
      std::printf("the square of %d is %d\n", n, answer.value());
    });
  std::printf("%zu calls are under way\n", remote.pending());

  loop.run();  // calls the callbacks, and returns when nothing is left to wait for
}
