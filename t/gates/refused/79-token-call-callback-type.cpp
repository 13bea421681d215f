// expect: the callback of async_call() must be void(std::exception_ptr, Inc)
#include <evparallel/asio.hpp>
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void add(par::Pool<int(int, int)>& pool) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  par::async_call(pool, 1, 2, [](std::exception_ptr, int) {});
#else
  par::async_call(pool, 1, 2, [](par::Result<int>) {});
#endif
}
