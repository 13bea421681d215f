// expect: this codec does not fit the type: it needs static void put(Writer&, const T&) and static T get(Reader&)
// JsonIo<int> and not JsonIo: a codec of one type.
#include <evparallel/evparallel.hpp>
#include <string>
namespace par = evparallel;

void name(par::Reactor& loop) {
  auto task = [](int n) { return std::to_string(n); };
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto numeral = par::run<par::JsonIo<std::string>>(loop, task);
#else
  auto numeral = par::run<par::JsonIo<int>>(loop, task);
#endif
}
