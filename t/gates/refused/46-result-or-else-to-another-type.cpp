// expect: the function of Result::or_else must return a Result of the same type
#include <evparallel/result.hpp>
namespace par = evparallel;

par::Result<int> known(const par::Result<int>& answer) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  return answer.or_else([](const par::Error&) { return par::Result<int>(0); });
#else
  return answer.or_else([](const par::Error&) { return 0; });
#endif
}
