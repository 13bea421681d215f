// expect: the template arguments of run and process are codecs; fn<Inc(Args...)>(f) names a signature
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

double half(double x) {
  return x / 2;
}

void halve(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto halved = par::run(loop, par::fn<double(double)>(half));
#else
  auto halved = par::run<double(double)>(loop, half);
#endif
}
