// expect: the function of a pool must return its answer; only run() takes a Reply
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

int main() {
  par::Reactor loop;
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto pool = par::pool(loop, [](int x) { return x; });
#else
  auto pool = par::pool(loop, [](int x, par::Reply<int> reply) { reply(x); });
#endif
}
