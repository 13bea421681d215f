// expect: the items of a map must convert implicitly to the argument of the pool's function
#include <evparallel/evparallel.hpp>
#include <vector>
namespace par = evparallel;

void answer(par::Reactor& loop, const std::vector<const char*>& names) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto pool =
      par::pool(loop, [](const std::string& name) { return static_cast<long>(name.size()); });
#else
  auto pool = par::pool(loop, [](long x) { return x; });
#endif
  pool.map(names, [](std::size_t, par::Result<long>) {});
}
