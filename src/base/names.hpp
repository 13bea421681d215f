// names.hpp - what the system and the compiler call things, as people read it.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <string>

namespace evparallel {

// "SIGSEGV"; "signal 40" for one without a name.
std::string signal_name(int signum);
// Of a type or a function, as it stands in the source; `mangled` itself where it is no such name.
std::string demangled(const char* mangled);

}  // namespace evparallel
