// child.hpp - the life of a child, from its fork to its _exit.
// Licence: see COPYING.
#pragma once

#include "server.hpp"

namespace evparallel {

[[noreturn]] void live(Spawn&&);

}  // namespace evparallel
