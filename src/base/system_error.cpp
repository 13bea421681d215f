// system_error.cpp - the system's text for an error number.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "base/system_error.hpp"

#include <cstring>

namespace evparallel::detail {

Error system_error(Errc code, const std::string& what, int number) {
  return Error(code, what + ": " + std::strerror(number)).with_os_error(number);
}

}  // namespace evparallel::detail
