// expect: the argument of Result::value_or must convert implicitly to the type of the value; cast it explicitly
#include <evparallel/result.hpp>
namespace par = evparallel;

std::vector<double> samples(const par::Result<std::vector<double>>& answer) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  return answer.value_or(std::vector<double>(100));
#else
  return answer.value_or(100);
#endif
}
