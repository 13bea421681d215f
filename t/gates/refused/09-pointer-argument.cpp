// expect: a pointer, string_view or reference_wrapper means nothing in another process
// The C function itself has such an argument: a lambda around it takes the string.
#include <evparallel/evparallel.hpp>
#include <cstdio>
#include <string>
namespace par = evparallel;

void print(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto puts = par::run(loop, [](const std::string& text) { return std::puts(text.c_str()); });
#else
  auto puts = par::run(loop, std::puts);
#endif
}
