// containers.cpp - symbols that say with which standard containers the library was built.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include <evparallel/detail/export.hpp>

namespace evparallel::detail {

#if defined _LIBCPP_VERSION
void this_program_uses_libcxx_but_libevparallel_was_built_with_libstdcxx() noexcept {}
#elif defined _GLIBCXX_USE_CXX11_ABI && !_GLIBCXX_USE_CXX11_ABI
void this_program_is_built_with_GLIBCXX_USE_CXX11_ABI_0_but_libevparallel_is_not() noexcept {}
#else
void this_program_uses_the_CXX11_ABI_of_libstdcxx_but_libevparallel_does_not() noexcept {}
#endif

#if defined _GLIBCXX_DEBUG
void this_program_is_built_with_GLIBCXX_DEBUG_but_libevparallel_is_not() noexcept {}
#else
void libevparallel_is_built_with_GLIBCXX_DEBUG_but_this_program_is_not() noexcept {}
#endif

}  // namespace evparallel::detail
