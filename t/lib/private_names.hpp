// private_names.hpp - lets a test use private names like public ones: par::Channel.
#pragma once

namespace evparallel {
namespace detail {}
using namespace detail;
}  // namespace evparallel
