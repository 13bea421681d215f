// expect: this type cannot be made of its EVPARALLEL_FIELDS
#include <evparallel/evparallel.hpp>
#include <string>
#include <utility>
namespace par = evparallel;

class Interval {
public:
#ifdef EVPARALLEL_TEST_ACCEPTED
  Interval(double first, double last, std::string unit)
      : first_(first), last_(last), unit_(std::move(unit)) {}
#else
  explicit Interval(double length) : first_(0), last_(length) {}
#endif
  double size() const {
    return last_ - first_;
  }

private:
  double first_;
  double last_;
  std::string unit_;
  EVPARALLEL_FIELDS_IN(Interval, first_, last_, unit_)
};

void measure(par::Reactor& loop) {
  auto task = par::run(loop, [](Interval interval) { return interval.size(); });
}
