// expect: this remote function takes an argument; call it as f(argument, callback)
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
