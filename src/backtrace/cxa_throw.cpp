// cxa_throw.cpp - the function that `throw` calls, in front of the one of the C++ library.
// Runs in: parent, child.  Licence: see COPYING.
//
// This is all that libevparallel-throw consists of: a library that everybody links must not stand in
// front of the C++ runtime.  Only as a shared library: a program that is linked statically has one
// function of each name, and so records no throw sites.
#ifdef PIC  // defined by libtool for the shared library

#include "backtrace/throw_site.hpp"

#include <dlfcn.h>

#include <atomic>
#include <exception>
#include <typeinfo>

namespace {

using Throw = void (*)(void*, std::type_info*, evparallel::detail::DestroyException);

// The next function of this name in the loader's order: the C++ library's, or a sanitizer's before
// it.
Throw real_throw() noexcept {
  static std::atomic<Throw> real{nullptr};
  Throw found = real.load(std::memory_order_relaxed);
  if (found == nullptr) {
    found = reinterpret_cast<Throw>(::dlsym(RTLD_NEXT, "__cxa_throw"));
    real.store(found, std::memory_order_relaxed);
  }
  return found;
}

// Before main(), in a program that is linked with this library.
[[gnu::constructor]] void announce() noexcept {
  evparallel::detail::announce_throw_library();
}

}  // namespace

extern "C" __attribute__((visibility("default"), noreturn)) void __cxa_throw(
    void* exception, std::type_info* type, evparallel::detail::DestroyException destroy) {
  const auto return_address = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  if (const Throw real = real_throw())
    real(exception, type, evparallel::detail::record_throw(exception, destroy, return_address));
  std::terminate();  // there is no such function
}

#endif
