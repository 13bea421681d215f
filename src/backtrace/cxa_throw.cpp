// cxa_throw.cpp - what `throw` is compiled to, in front of the C++ library's function of this name.
// Runs in: parent, child.  Licence: see COPYING.
//
// In the shared library alone: a program that is linked statically has one function of a name, and
// so no places of throws.
#ifdef PIC  // libtool's word for that

#include "backtrace/throw_site.hpp"

#include <dlfcn.h>

#include <atomic>
#include <exception>
#include <typeinfo>

namespace {

using Throw = void (*)(void*, std::type_info*, evparallel::DestroyException);

// The next one that the loader finds: the C++ library's, or a sanitizer's before it.
Throw real_throw() noexcept {
  static std::atomic<Throw> real{nullptr};
  Throw found = real.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = reinterpret_cast<Throw>(::dlsym(RTLD_NEXT, "__cxa_throw"));
    real.store(found, std::memory_order_relaxed);
  }
  return found;
}

}  // namespace

extern "C" __attribute__((visibility("default"), noreturn)) void __cxa_throw(
    void* exception, std::type_info* type, evparallel::DestroyException destroy) {
  const auto place = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  if (const Throw real = real_throw())
    real(exception, type, evparallel::record_throw(exception, destroy, place));
  std::terminate();  // there is none
}

#endif
