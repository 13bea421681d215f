// expect: the default codec is JSON: include <evparallel/json_io.hpp> or <evparallel/evparallel.hpp>, or name another codec
#include <evparallel/run.hpp>
namespace par = evparallel;

void twice(par::Reactor& loop) {
  auto task = [](int x) { return 2 * x; };
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto doubled = par::run<par::RawIo, par::RawIo>(loop, task);
#else
  auto doubled = par::run(loop, task);
#endif
}
