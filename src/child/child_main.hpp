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
void prepare_child_main();
[[noreturn]] void child_main(ChildArgs&&);

// The entry of a spare's first task: it answers this one call with what came, all on the way of any
// call, so that the way was gone once when its real task comes.  Its callable are addresses of code
// that the real one may pass.  Nothing of it is left behind.
void warm_up(detail::Child&, Reader& code);
constexpr std::uint64_t warm_up_call = 1;
constexpr std::string_view warm_up_text = "rehearsed";

}  // namespace evparallel
