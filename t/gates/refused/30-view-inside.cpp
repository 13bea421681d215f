// expect: a pointer, string_view or reference_wrapper means nothing in another process
// A codec could read it: but it makes views of the text that it reads, and that text is gone
// before the task sees them.
#include <evparallel/evparallel.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>
namespace par = evparallel;

void count(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](const std::vector<std::string>& words) { return words.size(); };
#else
  auto task = [](const std::vector<std::string_view>& words) { return words.size(); };
#endif
  auto size = par::run(loop, task);
}
