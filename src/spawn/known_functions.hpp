// known_functions.hpp - whether a child would have the functions that a task names.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "backtrace/loaded_modules.hpp"

#include <evparallel/task.hpp>

#include <optional>

namespace evparallel::detail {

// Checks the entry of a task and the function that its callable points to: see loaded_modules.hpp.
// What a lambda has captured is not checked.
std::optional<Error> why_unknown(const Modules& then, const Task&);

}  // namespace evparallel::detail
