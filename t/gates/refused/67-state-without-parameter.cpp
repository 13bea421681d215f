// expect: the first parameter of the function of with_state() is a reference to the type that the maker returns
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void add(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](int& state, int x) { return state += x; };
#else
  auto task = [](int state, int x) { return state + x; };
#endif
  auto f = par::run(loop, par::with_state([] { return 1; }, task));
}
