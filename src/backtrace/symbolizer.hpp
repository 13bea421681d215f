// symbolizer.hpp - the function and module at an address, and with debug information file and line.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include "backtrace/loaded_modules.hpp"

#include <evparallel/error.hpp>

#include <cstdint>
#include <vector>

namespace evparallel::detail {

// Converts addresses of a process that was forked when `then` was loaded, the innermost first, to
// frames.
enum class First {
  instruction,    // the first is where it happened; all others are return addresses
  return_address  // all are return addresses
};
// If another module is at an address now, only the address is known.  The first call reads the
// debug information of the program, and keeps it.
std::vector<StackFrame> symbolised(const Modules& then,
                                   const std::vector<std::uintptr_t>& addresses, First);

// The same for frames that have only the return addresses of a throw.
std::vector<StackFrame> symbolised(const Modules& then, const std::vector<StackFrame>& bare);
// The same for the backtrace of an error from a child.
Error symbolised(const Modules& then, const Error&);

}  // namespace evparallel::detail
