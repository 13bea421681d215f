// expect: a task is awaited once: co_await std::move(task)
// flags: coroutines
#include <evparallel/coroutine.hpp>
namespace par = evparallel;

par::Task<int> twice(par::Task<int> task) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  co_return co_await std::move(task);
#else
  co_return co_await task;
#endif
}
