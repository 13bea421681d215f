// expect: nlohmann/json cannot read this type: give it a default constructor and a from_json
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

struct Point {
  double x = 0, y = 0;
};
void to_json(nlohmann::json& json, const Point& p) {
  json = {p.x, p.y};
}
#ifdef EVPARALLEL_TEST_ACCEPTED
void from_json(const nlohmann::json& json, Point& p) {
  json.at(0).get_to(p.x);
  json.at(1).get_to(p.y);
}
#endif

void mirror(par::Reactor& loop) {
  auto mirrored = par::run(loop, [](Point p) { return Point{p.y, p.x}; });
}
