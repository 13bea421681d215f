// expect: a remote function takes at most one argument, which a Reply<Inc> may follow
#include <evparallel/evparallel.hpp>
#include <tuple>
namespace par = evparallel;

void add(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](std::tuple<int, int> x) { return std::get<0>(x) + std::get<1>(x); };
#else
  auto task = [](int a, int b) { return a + b; };
#endif
  auto sum = par::run(loop, task);
}
