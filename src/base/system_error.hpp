// system_error.hpp - an Error for a failed system call.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <evparallel/error.hpp>

#include <string>

namespace evparallel::detail {

// "WHAT: the system's text for NUMBER", with the number as os_error().
Error system_error(Errc, const std::string& what, int number);

}  // namespace evparallel::detail
