// private_names.hpp - lets a test of a floor name what is private as it names what is public: par::Channel.
#pragma once

namespace evparallel {
namespace detail {}
using namespace detail;
}  // namespace evparallel
