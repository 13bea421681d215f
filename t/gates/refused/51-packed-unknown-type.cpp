// expect: PackedIo does not take this type: give it EVPARALLEL_FIELDS(Type, member, ...) in its namespace
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

struct Size {
  int width = 0;
  int height = 0;
};
#ifdef EVPARALLEL_TEST_ACCEPTED
EVPARALLEL_FIELDS(Size, width, height)
#endif

void area(par::Reactor& loop) {
  auto task = par::run<par::RawIo, par::PackedIo>(loop, [](Size s) { return s.width * s.height; });
}
