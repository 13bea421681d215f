// linkage.cpp - a remote function in a program that is linked in different ways; see linkage.sh.
//
// Arguments: a library to load before the snapshot, and one to load after it; or none.
#include <evparallel/run.hpp>

#ifndef EVPARALLEL_TEST_STATIC
#include "library.hpp"

#include <dlfcn.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <string>

namespace par = evparallel;

namespace {

int half(int x) {
  return x / 2;
}

template <class F>
void show(par::Reactor& loop, const char* what, F f) {
  auto remote = par::run<par::RawIo, par::RawIo>(loop, f);
  remote(42, [what](par::Result<int> r) {
    if (r)
      std::printf("%s: %d\n", what, *r);
    else
      std::printf("%s: %s\n", what, r.error().what());
  });
  loop.run();
}

#ifndef EVPARALLEL_TEST_STATIC
const testing::Library* load(const char* path) {
  void* handle = ::dlopen(path, RTLD_NOW);
  if (handle == nullptr) {
    std::printf("%s\n", ::dlerror());
    std::exit(1);
  }
  return reinterpret_cast<decltype(&library)>(::dlsym(handle, "library"))();
}
#endif

}  // namespace

int main([[maybe_unused]] int argc, [[maybe_unused]] char** argv) {
#ifndef EVPARALLEL_TEST_STATIC
  const testing::Library* early = argc > 1 ? load(argv[1]) : nullptr;
#endif
  par::init();
#ifndef EVPARALLEL_TEST_STATIC
  const testing::Library* late = argc > 2 ? load(argv[2]) : nullptr;
#endif
  par::Reactor loop;
  show(loop, "lambda", [](int x) { return x + 1; });
  show(loop, "function", half);
  show(loop, "C library", static_cast<int (*)(int)>(std::abs));
#ifndef EVPARALLEL_TEST_STATIC
  if (early) show(loop, "early", early->twice);
  if (late) show(loop, "late", late->twice);
#endif
}
