// this_call.hpp - what a task may ask about the call that it is answering.
// Licence: see COPYING.  Manual: evparallel_run(3).
//
// For the task of a run(): about the call that it was called for, as long as it has not returned;
// what answers later asks its Reply.  In the task of a process() the deadline is the child's own.
// Elsewhere there is no call: not cancelled, no deadline, id 0.
#pragma once

#include <evparallel/detail/export.hpp>

#include <chrono>
#include <cstdint>

namespace evparallel {

namespace this_call {

// Nobody waits for the answer any more: the call was cancelled, or its deadline has passed.  Costs
// a look into shared memory: a loop may ask at each turn.
EVPARALLEL_API bool cancelled() noexcept;
// Until the deadline; 0 where it has passed or the call was cancelled; the largest value where
// there is none.
EVPARALLEL_API std::chrono::nanoseconds remaining() noexcept;
EVPARALLEL_API std::uint64_t id() noexcept;  // as Call::id() in the parent

}  // namespace this_call

}  // namespace evparallel
