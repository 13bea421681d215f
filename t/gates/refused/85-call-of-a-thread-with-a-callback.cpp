// expect: a function of a ReactorThread is called with its arguments, as many as it has
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void add(const par::SharedRemote<int(int, int)>& f, par::Reactor& loop) {
  const auto use = [](par::Result<int> r) { r.value(); };
#ifdef EVPARALLEL_TEST_ACCEPTED
  f.post_to(loop, 1, 2, use);
#else
  static_cast<void>(loop);
  f(1, 2, use);
#endif
}
