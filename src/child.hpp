// child.hpp - the life of a child, from its fork to its _exit.
// Licence: see COPYING.
#pragma once

#include "server.hpp"

namespace evparallel {

// In a fresh snapshot, once: what each of its children would have to do otherwise.
void prepare_lives();
[[noreturn]] void live(Spawn&&);

}  // namespace evparallel
