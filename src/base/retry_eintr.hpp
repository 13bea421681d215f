// retry_eintr.hpp - system calls that a signal has interrupted are made again.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cerrno>

namespace evparallel {

// What `call` returns, which is negative where it has failed, with errno; never for EINTR.
template <class Call>
auto retry_on_eintr(Call call) noexcept {
  decltype(call()) result;
  do result = call();
  while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace evparallel
