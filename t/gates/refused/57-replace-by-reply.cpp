// expect: the function of a pool must return its answer; only run() takes a Reply
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void replace(par::Reactor& loop) {
  auto pool = par::pool(loop, [](int x) { return x; });
#ifdef EVPARALLEL_TEST_ACCEPTED
  pool.replace([](int x) { return x + 1; });
#else
  pool.replace([](int x, par::Reply<int> reply) { reply(x + 1); });
#endif
}
