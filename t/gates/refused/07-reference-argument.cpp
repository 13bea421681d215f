// expect: a task cannot write into its caller's variable; take the argument by value or by const&
#include <evparallel/run.hpp>
#include <algorithm>
#include <vector>
namespace par = evparallel;

void sort(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](std::vector<int> x) {
#else
  auto task = [](std::vector<int>& x) {
#endif
    std::sort(x.begin(), x.end());
    return x;
  };
  auto sorted = par::run<par::RawIo, par::RawIo>(loop, task);
}
