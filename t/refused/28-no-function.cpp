// expect: this is no function
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void answer(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto three = par::run(loop, [] { return 3; });
#else
  auto three = par::run(loop, 3);
#endif
}
