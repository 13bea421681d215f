// expect: captures something that cannot be copied byte by byte
// The content of a std::function may be on the heap, and its type does not show that.
#include <evparallel/run.hpp>
#include <functional>
namespace par = evparallel;

void twice(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](int x) { return 2 * x; };
#else
  std::function<int(int)> task = [](int x) { return 2 * x; };
#endif
  auto doubled = par::run<par::RawIo, par::RawIo>(loop, task);
}
