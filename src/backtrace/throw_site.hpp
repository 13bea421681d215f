// throw_site.hpp - where the exceptions of a child were thrown.
// Runs in: parent, child.  Licence: see COPYING.
//
// When an exception has been caught its stack is gone.  So where `throw` is compiled to a call of
// __cxa_throw, cxa_throw.cpp stands in front of the C++ library's, and the stack is written down
// here on its way; only in a child that wants it.
#pragma once

#include <cstdint>
#include <exception>
#include <vector>

namespace evparallel {

// From now on, in this process.  `outermost` is in the last frame that is of interest.
void record_throws(const void* outermost) noexcept;

using DestroyException = void (*)(void* exception);
// `exception` is about to be thrown, by a call that returns to `place`.  Returns what must be called
// in place of `destroy`, which may be null, when it is destroyed; that may be `destroy` itself.
// Allocates nothing; any thread.
DestroyException record_throw(void* exception, DestroyException destroy,
                              std::uintptr_t place) noexcept;

// The return addresses from where it was thrown, the innermost first; none where that was not
// recorded.  However often it was caught, stored and thrown again since.
std::vector<std::uintptr_t> throw_site_of(const std::exception_ptr&);

}  // namespace evparallel
