// coroutine.hpp - coroutines of C++20: a call, a pause, or a pipe is awaited.
// Licence: see COPYING.  Manual: evparallel_coroutine(3).
//
// The library itself is C++17; this header needs C++20 (g++ -std=c++20), and nothing but headers.
// evparallel.hpp does not include it.
//
// A task runs where it is resumed: in start(), in wait(), and then in the loop.  A task that is
// cancelled gets Error{cancelled} at the co_await at which it is suspended, once; if it is dropped,
// it gets that, too, and is destroyed at its next co_await.
#pragma once

#include <evparallel/detail/export.hpp>

#if !defined __cpp_impl_coroutine && !defined __cpp_coroutines
#error "evparallel: coroutine.hpp needs a compiler with coroutines: -std=c++20"
#include <evparallel: see the error above>
#endif

#include <evparallel/detail/coroutine_call.hpp>
#include <evparallel/detail/coroutine_child.hpp>
#include <evparallel/detail/coroutine_group.hpp>
#include <evparallel/detail/coroutine_pipe.hpp>
#include <evparallel/detail/coroutine_run.hpp>
#include <evparallel/detail/coroutine_sleep.hpp>
#include <evparallel/detail/coroutine_task.hpp>
