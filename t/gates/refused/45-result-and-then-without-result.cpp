// expect: the function of Result::and_then must return a Result; pass one that returns a value or nothing to map()
#include <evparallel/result.hpp>
namespace par = evparallel;

int half(int x) {
  return x / 2;
}

par::Result<int> halved(const par::Result<int>& answer) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  return answer.map(half);
#else
  return answer.and_then(half);
#endif
}
