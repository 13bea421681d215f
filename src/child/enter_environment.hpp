// enter_environment.hpp - what Options say about the surroundings of a child, made so in the child.
// Runs in: child.  Licence: see COPYING.  Manual: evparallel_child(3), evparallel_protocol(7).
#pragma once

#include <string_view>

namespace evparallel {

// Takes a text of Surroundings.  Fails: Error{spawn_failed} where the directory cannot be entered, or the CPUs cannot
// be had.
void apply_environment(std::string_view text);

}  // namespace evparallel
