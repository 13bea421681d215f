// clang-format off
#include <evparallel/evparallel.hpp>
#include <cstdio>
#include <string>
namespace par = evparallel;

int main() {
  par::init();                                       // once, in the beginning
  par::Reactor loop;
  auto puts = par::run(loop, [](const std::string& s) { return std::puts(s.c_str()); });
  puts("hello", [](par::Result<int> r) { r.value(); });   // printed by a different process
  loop.run();
}
