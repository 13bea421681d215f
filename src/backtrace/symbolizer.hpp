// symbolizer.hpp - what is at an address: function, module, and with debug information file and line.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include "backtrace/loaded_modules.hpp"

#include <evparallel/error.hpp>

#include <cstdint>
#include <vector>

namespace evparallel {

// Addresses of a process that was forked when `then` was loaded, the innermost first, as frames.
enum class First {
  instruction,    // the first is where it happened; all others are what calls return to
  return_address  // all are
};
// Where something else is there now than was then, nothing but the address is told.
// The first time it reads the debug information of the program, and keeps it.
std::vector<StackFrame> symbolised(const Modules& then,
                                   const std::vector<std::uintptr_t>& addresses, First);

// The same frames with what is known of them, where so far there are only the addresses that a
// throw returns to.
std::vector<StackFrame> symbolised(const Modules& then, const std::vector<StackFrame>& bare);
// The same for the backtrace of an error as it came from a child.
Error symbolised(const Modules& then, const Error&);

}  // namespace evparallel
