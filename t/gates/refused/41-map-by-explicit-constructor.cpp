// expect: transform the range, or cast each item explicitly in a function that returns std::optional
#include <evparallel/evparallel.hpp>
#include <vector>
namespace par = evparallel;

void answer(par::Reactor& loop, const std::vector<int>& counts) {
  auto pool = par::pool(loop, [](const std::vector<double>& samples) { return samples.size(); });
  const auto on_result = [](std::size_t, par::Result<std::size_t>) {};
#ifdef EVPARALLEL_TEST_ACCEPTED
  pool.map(
      [next = counts.begin(), &counts]() mutable -> std::optional<std::vector<double>> {
        if (next == counts.end()) return std::nullopt;
        return std::vector<double>(static_cast<std::size_t>(*next++));
      },
      on_result);
#else
  pool.map(counts, on_result);
#endif
}
