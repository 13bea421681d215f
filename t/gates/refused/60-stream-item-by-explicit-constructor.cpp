// expect: cast the item explicitly: stream.push(T(item))
#include <evparallel/evparallel.hpp>
#include <vector>
namespace par = evparallel;

void answer(par::Reactor& loop, std::size_t count) {
  auto pool = par::pool(loop, [](const std::vector<double>& samples) { return samples.size(); });
  auto stream = pool.stream([](std::size_t, par::Result<std::size_t>) {});
#ifdef EVPARALLEL_TEST_ACCEPTED
  stream.push(std::vector<double>(count));
#else
  stream.push(count);
#endif
}
