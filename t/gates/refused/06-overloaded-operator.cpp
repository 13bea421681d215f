// expect: a generic lambda or an overloaded call operator has many signatures; name one with fn<Inc(Args...)>(f)
#include <evparallel/run.hpp>
namespace par = evparallel;

struct Twice {
  int operator()(int x) const { return x + x; }
  double operator()(double x) const { return x + x; }
};

void twice(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto doubled = par::run<par::RawIo, par::RawIo>(loop, par::fn<double(double)>(Twice{}));
#else
  auto doubled = par::run<par::RawIo, par::RawIo>(loop, Twice{});
#endif
}
