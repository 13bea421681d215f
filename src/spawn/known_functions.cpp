// known_functions.cpp - looks up each function of a task in the libraries of the snapshot.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/known_functions.hpp"

#include <cstdint>

namespace evparallel::detail {

std::optional<Error> why_unknown(const Modules& then, const Task& task) {
  std::optional<Error> why = why_unknown(then, reinterpret_cast<std::uintptr_t>(task.entry));
  for (const AnyFunction function : task.functions)
    if (!why) why = why_unknown(then, reinterpret_cast<std::uintptr_t>(function));
  return why;
}

}  // namespace evparallel::detail
