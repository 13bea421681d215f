// expect: on_start is called without arguments; bind them with bind(f, args...)
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

static void load(int) {}

int main() {
  par::PoolOptions options;
#ifdef EVPARALLEL_TEST_ACCEPTED
  options.child.on_start = par::bind(load, 1);
#else
  options.child.on_start = load;
#endif
}
