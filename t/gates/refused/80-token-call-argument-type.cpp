// expect: an argument of async_call() does not convert to that of the function
#include <evparallel/asio.hpp>
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void measure(par::Remote<int(std::string)>& f) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  par::async_call(f, par::CallOptions{}, "text", [](std::exception_ptr, int) {});
#else
  par::async_call(f, par::CallOptions{}, 5, [](std::exception_ptr, int) {});
#endif
}
