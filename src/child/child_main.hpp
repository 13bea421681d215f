// child_main.hpp - the main function of a child, from its fork to its _exit.
// Runs in: child.  Licence: see COPYING.
#pragma once

#include "snapshot/server.hpp"

#include <evparallel/io.hpp>

#include <string_view>

namespace evparallel::detail {

class ChildInterface;

// Does once, in a new snapshot, what each of its children would have to do otherwise.
void prepare_child_main();
[[noreturn]] void child_main(ChildArgs&&);

// The entry of a spare child's first task, the warm-up: it answers one call with the argument of
// the call.  This takes the path of any call, so that the pages of that path are present when the
// real task comes.  Its callable contains addresses of code that the real task may run.  It leaves
// no other traces.
void warm_up(ChildInterface&, Reader& code);
constexpr std::uint64_t warm_up_call = 1;
constexpr std::string_view warm_up_text = "rehearsed";

}  // namespace evparallel::detail
