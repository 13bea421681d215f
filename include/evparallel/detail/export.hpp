// export.hpp - what all public headers need first: the right compiler options, and exported names.
// Licence: see COPYING.
#pragma once

// Before any other header, because the first error of a compiler is the one that is read.  A missing
// file ends the compilation, which hundreds of errors would follow otherwise.
#if __cplusplus < 201703L
#error "evparallel needs C++17: compile with -std=c++17 or a later standard"
#include <evparallel: see the error above>
#endif
#ifndef __cpp_exceptions
#error "evparallel needs exceptions: compile without -fno-exceptions"
#include <evparallel: see the error above>
#endif

#include <evparallel/version.hpp>

#include <cstddef>

#if defined _LIBCPP_VERSION && !EVPARALLEL_LIBCXX
#error "evparallel was built with libstdc++: compile without -stdlib=libc++"
#include <evparallel: see the error above>
#elif !defined _LIBCPP_VERSION && EVPARALLEL_LIBCXX
#error "evparallel was built with libc++: compile with clang++ -stdlib=libc++"
#include <evparallel: see the error above>
#endif

// The symbols of the shared library that are visible; all others are hidden.
#define EVPARALLEL_API __attribute__((visibility("default")))

// A program with other standard containers than the library would misread its structures.  So each
// program refers to two functions that only a library of the same kind defines: one for the
// strings, one for the debug mode.  The name of the function is what the linker says if the library
// is of another kind.
namespace evparallel {

namespace detail {

#if defined _LIBCPP_VERSION
EVPARALLEL_API void this_program_uses_libcxx_but_libevparallel_was_built_with_libstdcxx() noexcept;
[[gnu::used]] inline void (*const same_strings)() noexcept =
    &this_program_uses_libcxx_but_libevparallel_was_built_with_libstdcxx;
#elif defined _GLIBCXX_USE_CXX11_ABI && !_GLIBCXX_USE_CXX11_ABI
EVPARALLEL_API void
this_program_is_built_with_GLIBCXX_USE_CXX11_ABI_0_but_libevparallel_is_not() noexcept;
[[gnu::used]] inline void (*const same_strings)() noexcept =
    &this_program_is_built_with_GLIBCXX_USE_CXX11_ABI_0_but_libevparallel_is_not;
#else
EVPARALLEL_API void
this_program_uses_the_CXX11_ABI_of_libstdcxx_but_libevparallel_does_not() noexcept;
[[gnu::used]] inline void (*const same_strings)() noexcept =
    &this_program_uses_the_CXX11_ABI_of_libstdcxx_but_libevparallel_does_not;
#endif

#if defined _GLIBCXX_DEBUG
EVPARALLEL_API void this_program_is_built_with_GLIBCXX_DEBUG_but_libevparallel_is_not() noexcept;
[[gnu::used]] inline void (*const same_containers)() noexcept =
    &this_program_is_built_with_GLIBCXX_DEBUG_but_libevparallel_is_not;
#else
EVPARALLEL_API void libevparallel_is_built_with_GLIBCXX_DEBUG_but_this_program_is_not() noexcept;
[[gnu::used]] inline void (*const same_containers)() noexcept =
    &libevparallel_is_built_with_GLIBCXX_DEBUG_but_this_program_is_not;
#endif

}  // namespace detail

}  // namespace evparallel
