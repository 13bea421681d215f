// this_thread.hpp - which thread this is: one comparison on the path of each call.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace evparallel::detail {

// Differs between all threads that live at the same time.
inline const void* this_thread() noexcept {
#if defined __has_builtin
#if __has_builtin(__builtin_thread_pointer)
#define EVPARALLEL_THREAD_POINTER
#endif
#endif
#ifdef EVPARALLEL_THREAD_POINTER
  return __builtin_thread_pointer();
#else
  static thread_local const char mark = 0;
  return &mark;
#endif
}

// The number that ps(1) and debuggers show.
inline pid_t this_thread_number() noexcept {
  return static_cast<pid_t>(::syscall(SYS_gettid));
}

}  // namespace evparallel::detail
