// expect: nlohmann/json has no number type as wide as long double
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
