// expect: EVPARALLEL_FIELDS of a type without a default constructor must list all members
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

struct Limits {
  const int low;
  const int high;
};
#ifdef EVPARALLEL_TEST_ACCEPTED
EVPARALLEL_FIELDS(Limits, low, high)
#else
EVPARALLEL_FIELDS(Limits, low)
#endif

void width(par::Reactor& loop) {
  auto task = par::run(loop, [](Limits limits) { return limits.high - limits.low; });
}
