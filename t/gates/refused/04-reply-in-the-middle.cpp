// expect: a task takes one Reply<Inc>, as its last parameter
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void add(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](int a, int b, par::Reply<int> reply) { reply(a + b); };
#else
  auto task = [](int a, par::Reply<int> reply, int b) { reply(a + b); };
#endif
  auto sum = par::run(loop, task);
}
