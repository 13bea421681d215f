// expect: this is not a function
#include <evparallel/run.hpp>
namespace par = evparallel;

void answer(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto three = par::run<par::RawIo, par::RawIo>(loop, [] { return 3; });
#else
  auto three = par::run<par::RawIo, par::RawIo>(loop, 3);
#endif
}
