// expect: the function of Result::map must not return an Error
#include <evparallel/result.hpp>
namespace par = evparallel;

void refuse(const par::Result<int>& answer) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  answer.and_then([](int) -> par::Result<int> { return par::Error(par::Errc::refused, "no"); });
#else
  answer.map([](int) { return par::Error(par::Errc::refused, "no"); });
#endif
}
