// export.hpp - marks the symbols of the shared library that are visible; all others are hidden.
// Licence: see COPYING.
#pragma once

#include <cstddef>

#define EVPARALLEL_API __attribute__((visibility("default")))

// A program with other standard containers than the library would misread its structures.  So each
// program refers to a function whose name only a library of the same kind defines, and does not
// link with another.
namespace evparallel {

namespace detail {

namespace with_GLIBCXX_DEBUG {
EVPARALLEL_API void library_is_built() noexcept;
}
namespace with_GLIBCXX_USE_CXX11_ABI_0 {
EVPARALLEL_API void library_is_built() noexcept;
}
namespace without_GLIBCXX_DEBUG {
EVPARALLEL_API void library_is_built() noexcept;
}

#if defined _GLIBCXX_DEBUG
[[gnu::used]] inline void (*const linked)() noexcept = &with_GLIBCXX_DEBUG::library_is_built;
#elif defined _GLIBCXX_USE_CXX11_ABI && !_GLIBCXX_USE_CXX11_ABI
[[gnu::used]] inline void (*const linked)() noexcept =
    &with_GLIBCXX_USE_CXX11_ABI_0::library_is_built;
#else
[[gnu::used]] inline void (*const linked)() noexcept = &without_GLIBCXX_DEBUG::library_is_built;
#endif

}  // namespace detail

}  // namespace evparallel
