// expect: a member function has no object in the child; pass a lambda that creates one
#include <evparallel/run.hpp>
namespace par = evparallel;

struct Scale {
  int factor = 3;
  int apply(int x) const { return factor * x; }
};

void scale(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto scaled = par::run<par::RawIo, par::RawIo>(loop, [](int x) { return Scale{}.apply(x); });
#else
  auto scaled = par::run<par::RawIo, par::RawIo>(loop, &Scale::apply);
#endif
}
