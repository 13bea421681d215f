// expect: call() takes a remote function or a pool and then its arguments
// flags: coroutines
#include <evparallel/coroutine.hpp>
namespace par = evparallel;

par::Task<int> add(par::Remote<int(int, int)>& f) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  co_return co_await par::call(f, 1, 2);
#else
  co_return co_await par::call(f, 1);
#endif
}
