// expect: a pointer, string_view or reference_wrapper means nothing in another process
#include <evparallel/evparallel.hpp>
#include <cstdlib>
#include <string>
namespace par = evparallel;

void ask(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](const std::string& name) {
    const char* value = std::getenv(name.c_str());
    return std::string(value ? value : "");
  };
#else
  auto task = [](const std::string& name) { return std::getenv(name.c_str()); };
#endif
  auto variable = par::run(loop, task);
}
