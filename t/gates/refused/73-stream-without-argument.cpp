// expect: the function of a stream must take an argument
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void map_all(par::Reactor& loop) {
  auto pool = par::pool(loop, [](int x) { return x; });
  auto constant = par::pool(loop, [] { return 1; });
  const auto keep = [](std::size_t, par::Result<int> r) { r.value(); };
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto stream = pool.stream(keep);
#else
  auto stream = constant.stream(keep);
#endif
}
