// expect: nlohmann/json cannot write this type: give it a to_json
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

struct Point {
  double x = 0, y = 0;
};
#ifdef EVPARALLEL_TEST_ACCEPTED
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Point, x, y)
#endif

void mirror(par::Reactor& loop) {
  auto mirrored = par::run<par::CborIo, par::MsgpackIo>(loop, [](const Point& p) {
    return Point{p.y, p.x};
  });
}
