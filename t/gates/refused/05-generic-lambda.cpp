// expect: a generic lambda or an overloaded call operator has many signatures; name one with fn<Inc(Args...)>(f)
#include <evparallel/run.hpp>
namespace par = evparallel;

void twice(par::Reactor& loop) {
  auto task = [](auto x) { return x + x; };
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto doubled = par::run<par::RawIo, par::RawIo>(loop, par::fn<int(int)>(task));
#else
  auto doubled = par::run<par::RawIo, par::RawIo>(loop, task);
#endif
}
