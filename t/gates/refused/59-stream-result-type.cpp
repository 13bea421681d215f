// expect: on_result of a stream must be void(std::size_t index, Result<Inc>)
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

int main() {
  par::Reactor loop;
  auto pool = par::pool(loop, [](int x) { return x; });
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto stream = pool.stream([](std::size_t, par::Result<int>) {});
#else
  auto stream = pool.stream([](par::Result<int>) {});
#endif
}
