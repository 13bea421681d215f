// no_memory.hpp - the error for a lack of memory in this process.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <evparallel/error.hpp>

#include <cerrno>
#include <string>

namespace evparallel::detail {

// `what`: such as "for the answer".  The process goes on, and may succeed with something smaller.
inline Error no_memory(const std::string& what) {
  return Error(Errc::overloaded, "overloaded: there is no memory " + what).with_os_error(ENOMEM);
}

}  // namespace evparallel::detail
