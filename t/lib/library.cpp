// library.cpp - functions, and uses of evparallel, in a library that tests load with dlopen.
#include "library.hpp"

namespace par = evparallel;

namespace {

int twice(int x) {
  return 2 * x;
}
int product(int x, int y) {
  return x * y;
}
std::size_t size(const std::string& s) {
  return s.size();
}
void echo(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int x) { pipe.send(x); });
}
par::Remote<int(int)> run_thrice(par::Reactor& loop) {
  return par::run<par::RawIo, par::RawIo>(loop, [](int x) { return 3 * x; });
}
par::Process<int, int> process_echo(par::Reactor& loop) {
  return par::process<par::RawIo, par::RawIo>(loop, [](par::Pipe<int, int> pipe) { echo(pipe); });
}

}  // namespace

const testing::Library* library() {
  static const testing::Library all{&twice, &product, &size, &echo, &run_thrice, &process_echo};
  return &all;
}
