// expect: the function of Result::map must return a value or nothing, not a reference
#include <evparallel/result.hpp>
namespace par = evparallel;

struct Order {
  int number;
};

int number_of(const par::Result<Order>& order) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  return order.map([](const Order& o) { return o.number; }).value_or(0);
#else
  return order.map(&Order::number).value_or(0);
#endif
}
