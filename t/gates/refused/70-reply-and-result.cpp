// expect: a task that takes a Reply<Inc> returns void
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void add(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](int x, par::Reply<int> reply) { reply(x); };
#else
  auto task = [](int x, par::Reply<int> reply) { return reply(x), x; };
#endif
  auto f = par::run(loop, task);
}
