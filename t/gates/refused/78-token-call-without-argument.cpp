// expect: async_call() takes a remote function or a pool, its arguments, as many as it has
#include <evparallel/asio.hpp>
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void add(par::Remote<int(int, int)>& f) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  par::async_call(f, 1, 2, [](std::exception_ptr, int) {});
#else
  par::async_call(f, 1, [](std::exception_ptr, int) {});
#endif
}
