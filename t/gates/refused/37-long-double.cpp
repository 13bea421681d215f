// expect: nlohmann/json has no number as wide as this one (long double)
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

#ifdef EVPARALLEL_TEST_ACCEPTED
using Number = double;
#else
using Number = long double;
#endif

void make(par::Reactor& loop) {
  auto made = par::run(loop, [] { return Number(); });
}
