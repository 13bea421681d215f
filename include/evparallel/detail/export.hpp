// export.hpp - what leaves the shared library: everything else is hidden.
// Licence: see COPYING.
#pragma once

#include <cstddef>

#define EVPARALLEL_API __attribute__((visibility("default")))

// A program whose standard containers are not those of the library would read its structures wrongly.
// So each program asks for a function by name that only a library of its own kind has, and does not
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
