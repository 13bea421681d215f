// expect: captures something that cannot be copied byte by byte
#include <evparallel/evparallel.hpp>
#include <cstddef>
#include <vector>
namespace par = evparallel;

void look_up(par::Reactor& loop, const std::vector<double>& table) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto at = [](const std::vector<double>& from, std::size_t index) { return from.at(index); };
  auto task = par::bind(at, table);
#else
  auto task = [table](std::size_t index) { return table.at(index); };
#endif
  auto entry = par::run(loop, task);
}
