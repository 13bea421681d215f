// expect: Remote and Pool name the types of the values, without const and &: Remote<Inc(std::string)>
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

int main() {
#ifdef EVPARALLEL_TEST_ACCEPTED
  par::Remote<int(std::string)> f;
#else
  par::Remote<int(const std::string&)> f;
#endif
}
