// names.cpp - names of signals, types and functions.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "base/names.hpp"

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <memory>

namespace evparallel::detail {

std::string signal_name(int signum) {
  const char* abbreviation = sigabbrev_np(signum);
  return abbreviation ? std::string("SIG") + abbreviation : "signal " + std::to_string(signum);
}

std::string demangled(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  return name ? name.get() : mangled;
}

}  // namespace evparallel::detail
