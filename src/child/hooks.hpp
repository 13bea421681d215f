// hooks.hpp - what is called at the beginning and at the end of a child.
// Runs in: child.  Licence: see COPYING.
#pragma once

#include <evparallel/error.hpp>

#include <optional>

namespace evparallel {

// Fails: whatever a hook throws; those behind it are not called then.
void call_start_hooks();
// Each is called once, also where one of them ends the process by exit().  Returns the first error.
std::optional<Error> call_exit_hooks() noexcept;

}  // namespace evparallel
