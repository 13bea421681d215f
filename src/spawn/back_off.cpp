// back_off.cpp - children that fail one after the other: the pause before the next, and the end.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/back_off.hpp"

#include <algorithm>

namespace evparallel::detail {

std::chrono::milliseconds doubled_pause(std::chrono::milliseconds first, unsigned times,
                                        std::chrono::milliseconds longest) noexcept {
  std::chrono::milliseconds pause = std::min(first, longest);
  for (; times > 0 && pause < longest && pause.count() > 0; --times)
    pause = pause > longest / 2 ? longest : pause * 2;
  return pause;
}

Error unhealthy(const std::string& reason, const Error& last) {
  const Error error =
      Error(Errc::unhealthy, "unhealthy: " + reason + "; the last error: " + last.what())
          .with_remote_type(last.remote_type())
          .with_os_error(last.os_error());
  return last.exit() ? error.with_exit(*last.exit()) : error;
}

}  // namespace evparallel::detail
