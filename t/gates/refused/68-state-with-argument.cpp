// expect: the maker of a state takes no arguments; bind them with with_state(bind(make, args...), f)
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

static int make(int x) {
  return x;
}

void add(par::Reactor& loop) {
  auto task = [](int& state, int x) { return state += x; };
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto f = par::run(loop, par::with_state(par::bind(make, 1), task));
#else
  auto f = par::run(loop, par::with_state(make, task));
#endif
}
