// expect: the callback of ReactorThread::post must be void() or void(Reactor&)
#include <evparallel/evparallel.hpp>
namespace par = evparallel;

void look(const par::ReactorThread& background) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  background.post([](par::Reactor& loop) { loop.stop(); });
#else
  background.post([](int) {});
#endif
}
