// expect: pass it with bind(f, args...)
#include <evparallel/supervise.hpp>
#include <string>
namespace par = evparallel;

par::Supervisor serve(par::Reactor& loop, const std::string& log) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  return par::supervise(loop, par::bind([](const std::string&) {}, log), 4);
#else
  return par::supervise(
      loop, [log](unsigned) {}, 4);
#endif
}
