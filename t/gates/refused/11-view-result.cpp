// expect: a pointer, string_view or reference_wrapper means nothing in another process
#include <evparallel/run.hpp>
#include <string>
#include <string_view>
namespace par = evparallel;

void name(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](int n) { return std::string(n % 2 == 0 ? "even" : "odd"); };
#else
  auto task = [](int n) { return std::string_view(n % 2 == 0 ? "even" : "odd"); };
#endif
  auto parity = par::run<par::RawIo, par::RawIo>(loop, task);
}
