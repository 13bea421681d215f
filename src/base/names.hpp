// names.hpp - readable names of signals, types and functions.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <evparallel/error.hpp>

#include <string>

namespace evparallel::detail {

// "SIGSEGV"; "signal 40" for one without a name.
std::string signal_name(int signum);
// How a process ended: "was killed by SIGSEGV (core dumped)".
std::string end_in_words(const ExitStatus&);
// The name of a type or a function as in the source; `mangled` itself if it is no mangled name.
std::string demangled(const char* mangled);

}  // namespace evparallel::detail
