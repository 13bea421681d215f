// expect: wait() takes the arguments of the function, as many as it has
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

int take(par::Reactor& loop) {
  auto pool = par::pool(loop, [](int x) { return x; });
#ifdef EVPARALLEL_TEST_ACCEPTED
  return pool.wait(1).value();
#else
  return pool.wait().value();
#endif
}
