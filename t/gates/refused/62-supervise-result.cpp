// expect: a supervised function returns nothing
#include <evparallel/supervise.hpp>
namespace par = evparallel;

par::Supervisor serve(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  return par::supervise(
      loop, [] {}, 4);
#else
  return par::supervise(
      loop, [] { return 0; }, 4);
#endif
}
