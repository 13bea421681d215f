// expect: bind() goes into with_state(), not around it
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void add(par::Reactor& loop) {
  auto task = [](int& state, int x) { return state += x; };
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto f = par::run(loop, par::with_state(par::bind([](int x) { return x; }, 1), task));
#else
  auto f = par::run(loop, par::bind(par::with_state([] { return 1; }, task), 1));
#endif
}
