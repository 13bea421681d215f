// throw_site.hpp - where the exceptions of a child were thrown.
// Runs in: parent, child.  Licence: see COPYING.
//
// Once an exception is caught its stack is gone.  So where `throw` is compiled to a call of
// __cxa_throw, the function in cxa_throw.cpp is called before that of the C++ library, and the
// stack is recorded here.  Only a program that is linked with libevparallel-throw has that function,
// and only a child that asks for backtraces records.
#pragma once

#include <evparallel/detail/export.hpp>

#include <cstdint>
#include <exception>
#include <vector>

namespace evparallel::detail {

// Records throws of this process from now on.  `outermost` is in the last frame that is recorded.
void record_throws(const void* outermost) noexcept;

// ---- what libevparallel-throw calls ----

using DestroyException = void (*)(void* exception);
// `exception` is about to be thrown by a call that returns to `return_address`.  Returns the function to
// call instead of `destroy`, which may be null, when the exception is destroyed; it may be
// `destroy` itself.  Allocates nothing; any thread.
EVPARALLEL_API DestroyException record_throw(void* exception, DestroyException destroy,
                                             std::uintptr_t return_address) noexcept;
// That library is loaded.
EVPARALLEL_API void announce_throw_library() noexcept;

bool has_throw_library() noexcept;

// The return addresses of its throw site, the innermost first; none if the throw was not recorded.
// Valid however often it was caught, stored and thrown again since.
std::vector<std::uintptr_t> throw_site_of(const std::exception_ptr&);

}  // namespace evparallel::detail
