// expect: the new function of a pool must have the arguments and the result of the old one
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void replace(par::Reactor& loop) {
  auto pool = par::pool(loop, [](int x) { return x; });
#ifdef EVPARALLEL_TEST_ACCEPTED
  pool.replace([](const int& x) { return x + 1; });
#else
  pool.replace([](long x) { return static_cast<int>(x); });
#endif
}
