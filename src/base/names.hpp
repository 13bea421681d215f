// names.hpp - readable names of signals, types and functions.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <string>

namespace evparallel::detail {

// "SIGSEGV"; "signal 40" for one without a name.
std::string signal_name(int signum);
// The name of a type or a function as in the source; `mangled` itself if it is no mangled name.
std::string demangled(const char* mangled);

}  // namespace evparallel::detail
