// expect: captures something that cannot be copied byte by byte
// bind sends the arguments through their codecs, and the function itself byte by byte.
#include <evparallel/evparallel.hpp>
#include <string>
namespace par = evparallel;

void greet(par::Reactor& loop, const std::string& greeting, const std::string& name) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto join = [](const std::string& a, const std::string& b) { return a + b; };
  auto task = par::bind(join, greeting, name);
#else
  auto join = [greeting](const std::string& b) { return greeting + b; };
  auto task = par::bind(join, name);
#endif
  auto say = par::run(loop, task);
}
