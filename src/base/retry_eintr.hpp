// retry_eintr.hpp - repeats system calls that a signal has interrupted.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cerrno>

namespace evparallel::detail {

// Returns the result of `call`, which is negative, with errno, if it has failed; never for EINTR.
template <class Call>
auto retry_on_eintr(Call call) noexcept {
  decltype(call()) result;
  do result = call();
  while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace evparallel::detail
