// expect: the items of a map must convert implicitly to the argument of the pool's function
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void answer(par::Reactor& loop) {
  auto pool = par::pool(loop, [](int x) { return x; });
#ifdef EVPARALLEL_TEST_ACCEPTED
  using Item = double;  // an implicit conversion, as in a call
#else
  using Item = const char*;
#endif
  pool.reduce([]() -> std::optional<Item> { return std::nullopt; }, 0,
              [](int& sum, int x) { sum += x; }, [](int, const par::MapSummary&) {});
}
