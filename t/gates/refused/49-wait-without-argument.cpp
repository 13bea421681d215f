// expect: wait() takes the arguments of the function, as many as it has
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

int take(par::Reactor& loop) {
  auto f = par::run(loop, [](int x) { return x; });
#ifdef EVPARALLEL_TEST_ACCEPTED
  return f.wait(1).value();
#else
  return f.wait().value();
#endif
}
