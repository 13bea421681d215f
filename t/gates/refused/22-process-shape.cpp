// expect: the task of a process must be void(Pipe<Out, Inc>): it reads what the parent writes
#include <evparallel/process.hpp>
namespace par = evparallel;

void twice(par::Reactor& loop) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto task = [](par::Pipe<int, int> pipe) {
    pipe.on_message([pipe](int x) { pipe.send(2 * x); });
  };
#else
  auto task = [](int x) { return 2 * x; };
#endif
  auto doubler = par::process<par::RawIo, par::RawIo>(loop, task);
}
