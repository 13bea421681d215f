// enter_environment.hpp - sets up the environment of a child as Options describe it.
// Runs in: child.  Licence: see COPYING.  Manual: evparallel_child(3), evparallel_protocol(7).
#pragma once

#include <string_view>

namespace evparallel::detail {

// Takes a text of ChildEnvironment.  Fails: Error{spawn_failed} if the directory cannot be entered,
// or the CPUs cannot be used.
void apply_environment(std::string_view text);

}  // namespace evparallel::detail
