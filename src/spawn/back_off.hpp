// back_off.hpp - children that fail one after the other: the pause before the next, and the end.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include <evparallel/error.hpp>

#include <chrono>
#include <string>

namespace evparallel::detail {

// `first`, doubled so many times, but at most `longest`.
std::chrono::milliseconds doubled_pause(std::chrono::milliseconds first, unsigned times,
                                        std::chrono::milliseconds longest) noexcept;

// Error{unhealthy} with this reason and all that is known of the last failure.
Error unhealthy(const std::string& reason, const Error& last);

}  // namespace evparallel::detail
