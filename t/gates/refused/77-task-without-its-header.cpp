// expect: a function that returns a Task needs #include <evparallel/coroutine.hpp>
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

#ifdef EVPARALLEL_TEST_ACCEPTED
int later(int);
#else
par::Task<int> later(int);
#endif

void add(par::Reactor& loop) {
  auto f = par::run(loop, later);
}
