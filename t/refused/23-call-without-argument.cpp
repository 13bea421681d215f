// expect: this remote function takes an argument: f(argument, callback)
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void answer(par::Reactor& loop) {
  auto doubled = par::run(loop, [](int x) { return 2 * x; });
  auto heard = [](par::Result<int> r) { r.value(); };
#ifdef EVPARALLEL_TEST_ACCEPTED
  doubled(21, heard);
#else
  doubled(heard);
#endif
}
