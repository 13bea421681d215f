// expect: a supervised function must be void(), or void(unsigned) with the index of its place
#include <evparallel/supervise.hpp>
#include <string>
namespace par = evparallel;

par::Supervisor serve(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  return par::supervise(loop, par::bind([](std::string, unsigned) {}, "/run/log"), 4);
#else
  return par::supervise(
      loop, [](std::string) {}, 4);
#endif
}
