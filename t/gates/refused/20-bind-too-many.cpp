// expect: bind() has more arguments than the function takes
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

int twice(int x) {
  return 2 * x;
}

void answer(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = par::bind(twice, 21);
#else
  auto task = par::bind(twice, 21, 42);
#endif
  auto doubled = par::run(loop, task);
}
