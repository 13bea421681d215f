// expect: captures something that cannot be copied byte by byte
// The bytes of a string point into the heap of the parent.
#include <evparallel/evparallel.hpp>
#include <string>
namespace par = evparallel;

void greet(par::Reactor& loop, const std::string& greeting) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto join = [](const std::string& first, const std::string& name) { return first + name; };
  auto task = par::bind(join, greeting);
#else
  auto task = [greeting](const std::string& name) { return greeting + name; };
#endif
  auto say = par::run(loop, task);
}
