// expect: a pointer or reference means nothing in another process; send the value
#include <evparallel/evparallel.hpp>
#include <string>
namespace par = evparallel;

struct Named {
#ifdef EVPARALLEL_TEST_ACCEPTED
  std::string name;
#else
  const char* name = "";
#endif
};
EVPARALLEL_FIELDS(Named, name)

void greet(par::Reactor& loop) {
  auto task = par::run(loop, [](const Named& named) { return std::string(named.name); });
}
