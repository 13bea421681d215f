// emulation.hpp - whether the program runs on a processor that qemu-user simulates.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

namespace evparallel::detail {

// For handlers of signals, too.  False also if /proc is not available.
bool is_emulated() noexcept;

}  // namespace evparallel::detail
