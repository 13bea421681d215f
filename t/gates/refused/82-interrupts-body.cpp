// expect: evparallel: the body of Interrupts::run must return an exit status, or nothing
#include <evparallel/interrupt.hpp>

#include <string>

int main() {
#ifdef EVPARALLEL_TEST_ACCEPTED
  return evparallel::interruptible().run([] { return 1; });
#else
  return evparallel::interruptible().run([] { return std::string("done"); });
#endif
}
