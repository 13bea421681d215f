// child_main.hpp - the life of a child, from its fork to its _exit.
// Runs in: child.  Licence: see COPYING.
#pragma once

#include "snapshot/server.hpp"

#include <evparallel/io.hpp>

#include <string_view>

namespace evparallel {

namespace detail {
class Child;
}

// In a fresh snapshot, once: what each of its children would have to do otherwise.
void prepare_lives();
[[noreturn]] void live(Spawn&&);

// The entry of a spare's first task: it answers this one call with what came, all on the way of any
// call, so that the way was gone once when its real task comes.  Its callable are addresses of code
// that the real one may pass.  Nothing of it is left behind.
void rehearse(detail::Child&, Reader& code);
constexpr std::uint64_t rehearsed_call = 1;
constexpr std::string_view rehearsed_text = "rehearsed";

}  // namespace evparallel
