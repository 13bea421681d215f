// expect: a pointer, string_view or reference_wrapper means nothing in another process
// A bound argument travels as the type of the parameter, whatever type was given.
#include <evparallel/evparallel.hpp>
#include <string>
namespace par = evparallel;

void greet(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto join = [](const std::string& first, const std::string& name) { return first + name; };
#else
  auto join = [](const char* first, const std::string& name) { return first + name; };
#endif
  auto say = par::run(loop, par::bind(join, "hello "));
}
