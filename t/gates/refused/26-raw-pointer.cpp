// expect: a pointer means nothing in another process; send the value
#include <evparallel/io.hpp>
namespace par = evparallel;

void put(par::Writer& out, int& value) {
#ifdef EVPARALLEL_TEST_ACCEPTED
  par::RawIo<int>::put(out, value);
#else
  par::RawIo<int*>::put(out, &value);
#endif
}
