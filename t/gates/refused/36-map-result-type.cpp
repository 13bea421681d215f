// expect: on_result of a map must be void(std::size_t index, Result<Inc>)
#include <evparallel/evparallel.hpp>
#include <vector>
namespace par = evparallel;

int main() {
  par::Reactor loop;
  auto pool = par::pool(loop, [](int x) { return x; });
  const auto done = [](const par::MapSummary&) {};
#ifdef EVPARALLEL_TEST_ACCEPTED
  pool.map(
      std::vector<int>{1}, [](std::size_t, par::Result<int>) {}, done);
#else
  pool.map(
      std::vector<int>{1}, [](par::Result<int>) {}, done);
#endif
}
