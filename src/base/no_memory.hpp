// no_memory.hpp - the error of what this process has no memory for.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <evparallel/error.hpp>

#include <cerrno>
#include <string>

namespace evparallel {

// `what`: such as "for the answer".  The process goes on, and may try what is smaller.
inline Error no_memory(const std::string& what) {
  return Error(Errc::overloaded, "overloaded: no memory " + what).with_os_error(ENOMEM);
}

}  // namespace evparallel
