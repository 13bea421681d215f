// expect: the callback of a timer must be void() or void(Timer&)
#include <evparallel/reactor.hpp>
namespace par = evparallel;

par::Timer count(par::Reactor& loop, int& ticks) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  return loop.every(std::chrono::seconds(1), [&](par::Timer& own) {
    if (++ticks == 3) own.cancel();
  });
#else
  return loop.every(std::chrono::seconds(1), [&](int tick) { ticks = tick; });
#endif
}
