// expect: the function of this pool takes an argument: pool.wait(argument)
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
