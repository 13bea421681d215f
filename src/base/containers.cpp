// containers.cpp - a symbol that says with which standard containers the library was built.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include <evparallel/detail/export.hpp>

namespace evparallel::detail {

#if defined _GLIBCXX_DEBUG
void with_GLIBCXX_DEBUG::library_is_built() noexcept {}
#elif defined _GLIBCXX_USE_CXX11_ABI && !_GLIBCXX_USE_CXX11_ABI
void with_GLIBCXX_USE_CXX11_ABI_0::library_is_built() noexcept {}
#else
void without_GLIBCXX_DEBUG::library_is_built() noexcept {}
#endif

}  // namespace evparallel::detail
