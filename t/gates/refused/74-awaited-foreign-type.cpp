// expect: a Task can await another Task, and what call(), sleep(), when_all() and the other functions
// flags: coroutines
#include <evparallel/coroutine.hpp>
namespace par = evparallel;

par::Task<void> pause_for_ever(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  co_await par::sleep(loop, std::chrono::hours(1));
#else
  static_cast<void>(loop);
  co_await std::suspend_always();
#endif
}
