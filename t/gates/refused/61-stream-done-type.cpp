// expect: on_done of a stream must be void(const MapSummary&)
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

int main() {
  par::Reactor loop;
  auto pool = par::pool(loop, [](int x) { return x; });
  const auto on_result = [](std::size_t, par::Result<int>) {};
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto stream = pool.stream(on_result, [](const par::MapSummary&) {});
#else
  auto stream = pool.stream(on_result, [] {});
#endif
}
