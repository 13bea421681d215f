// expect: the callback of a call must be void(Result<Inc>)
#include <evparallel/run.hpp>
#include <string>
namespace par = evparallel;

void answer(par::Reactor& loop) {
  auto doubled = par::run<par::RawIo, par::RawIo>(loop, [](int x) { return 2 * x; });
#ifdef EVPARALLEL_TEST_ACCEPTED
  doubled(21, [](par::Result<int> r) { r.value(); });
#else
  doubled(21, [](par::Result<std::string> r) { r.value(); });
#endif
}
