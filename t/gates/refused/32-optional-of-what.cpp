// expect: nlohmann/json cannot write this type: give it a to_json
// An optional can be written as JSON only if its value can.
#include <evparallel/evparallel.hpp>
#include <optional>
namespace par = evparallel;

struct Point {
  double x = 0, y = 0;
};
#ifdef EVPARALLEL_TEST_ACCEPTED
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Point, x, y)
#endif

void mirror(par::Reactor& loop) {
  auto mirrored = par::run(loop, [](const std::optional<Point>& p) {
    return p ? std::optional<Point>({p->y, p->x}) : std::nullopt;
  });
}
