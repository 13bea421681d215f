// expect: nlohmann/json has no number type as wide as long double
#include <evparallel/evparallel.hpp>
#include <chrono>
namespace par = evparallel;

#ifdef EVPARALLEL_TEST_ACCEPTED
using Number = std::chrono::duration<double>;
#else
using Number = std::chrono::duration<long double>;
#endif

void take(par::Reactor& loop) {
  auto taken =
      par::run<par::DefaultIo, par::MsgpackIo<Number>>(loop, [](const Number&) { return 1; });
}
