// expect: a remote function is called with its arguments, as many as it has, and then the callback
#include <evparallel/run.hpp>
namespace par = evparallel;

void answer(par::Reactor& loop) {
  auto doubled = par::run<par::RawIo, par::RawIo>(loop, [](int x) { return 2 * x; });
  auto received = [](par::Result<int> r) { r.value(); };
#ifdef EVPARALLEL_TEST_ACCEPTED
  doubled(21, received);
#else
  doubled(received);
#endif
}
