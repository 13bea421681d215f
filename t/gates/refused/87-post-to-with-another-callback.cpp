// expect: the callback of post_to() must be void(Result<Inc>) or void(Result<Inc>, Call)
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void add(const par::SharedRemote<int(int, int)>& f, par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  f.post_to(loop, 1, 2, [](par::Result<int> r) { r.value(); });
#else
  f.post_to(loop, 1, 2, [](int) {});
#endif
}
