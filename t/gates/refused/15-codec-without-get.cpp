// expect: this codec does not fit the type: it needs static void put(Writer&, const T&) and static T get(Reader&)
#include <evparallel/run.hpp>
namespace par = evparallel;

struct Byte {
  static void put(par::Writer& out, const char& value) { out.write(&value, 1); }
#ifdef EVPARALLEL_TEST_ACCEPTED
  static char get(par::Reader& in) {
    return in.read(1)[0];
  }
#endif
};

void next(par::Reactor& loop) {
  auto following = par::run<Byte, Byte>(loop, [](char c) { return ++c; });
}
