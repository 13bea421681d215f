// expect: this codec does not fit the type
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

struct IntIo {
  static void put(par::Writer& out, int x) { out.write(&x, sizeof x); }
  static int get(par::Reader& in) {
    int x = 0;
    in.read(&x, sizeof x);
    return x;
  }
};

void add(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto f = par::run<IntIo, IntIo>(loop, [](int a, int b) { return a + b; });
#else
  auto f = par::run<IntIo, IntIo>(loop, [](int a, std::string b) { return a + b.size(); });
#endif
}
