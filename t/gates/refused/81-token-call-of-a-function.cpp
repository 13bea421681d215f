// expect: async_call() takes a Remote or a Pool, as a variable
#include <evparallel/asio.hpp>
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

int plus_one(int x);

void add(par::Remote<int(int)>& f) {
  const auto callback = [](std::exception_ptr, int) {};
#ifdef EVPARALLEL_TEST_ACCEPTED
  par::async_call(f, 1, callback);
#else
  static_cast<void>(f);
  par::async_call(plus_one, 1, callback);
#endif
}
