// this_call.hpp - what a task can ask about the call that it is answering.
// Licence: see COPYING.  Manual: evparallel_run(3).
//
// For the task of a run(): about the call for which it was called, until it returns; a task that
// answers later asks its Reply.  In the task of a process() the deadline is the child's own.
// Elsewhere there is no call: not cancelled, no deadline, id 0.
#pragma once

#include <evparallel/detail/export.hpp>

#include <chrono>
#include <cstdint>

namespace evparallel {

namespace this_call {

// The answer is not wanted any more: the call was cancelled, or its deadline has passed.  Costs a
// read of shared memory, so a loop may ask in each iteration.
EVPARALLEL_API bool cancelled() noexcept;
// The time until the deadline; 0 if it has passed or the call was cancelled; the largest value if
// there is none.
EVPARALLEL_API std::chrono::nanoseconds remaining() noexcept;
EVPARALLEL_API std::uint64_t id() noexcept;  // as Call::id() in the parent

}  // namespace this_call

}  // namespace evparallel
