// expect: post_to() takes a Reactor, the arguments of the function, as many as it has, and then the callback
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void add(const par::SharedPool<int(int, int)>& pool, par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  static_cast<void>(loop);
  pool.submit(1, 2);
#else
  pool.post_to(loop, 1, 2);
#endif
}
