// expect: the function of Result::map must take the value; that of a Result<void> takes nothing
#include <evparallel/result.hpp>
namespace par = evparallel;

void print(const par::Result<void>& answer) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  answer.map([] {});
#else
  answer.map([](int) {});
#endif
}
