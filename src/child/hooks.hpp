// hooks.hpp - the hooks at the start and at the exit of a child.
// Runs in: child.  Licence: see COPYING.
#pragma once

#include <evparallel/error.hpp>

#include <optional>

namespace evparallel::detail {

// Fails: with any exception of a hook; the hooks after it are not called then.
void call_start_hooks();
// Calls each hook once, also if one of them ends the process by exit().  Returns the first error.
std::optional<Error> call_exit_hooks() noexcept;

}  // namespace evparallel::detail
