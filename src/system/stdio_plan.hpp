// stdio_plan.hpp - the standard streams of a child, on their way to it: from who asks, through the
// snapshot, to their places.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include "system/socket.hpp"

#include <cstddef>
#include <cstdint>

namespace evparallel {

// Bits of a plan, for standard stream `number`; without one it is as the snapshot has it.
constexpr std::uint32_t stream_comes(int number) noexcept {  // a descriptor, in order of number
  return std::uint32_t{1} << number;
}
constexpr std::uint32_t stream_null(int number) noexcept {  // as the snapshot's standard input
  return std::uint32_t{8} << number;
}
constexpr std::uint32_t stream_by_lines(int number) noexcept {  // written line by line
  return std::uint32_t{64} << number;
}

struct StdioPlan {
  static constexpr int count = 3;

  std::uint32_t plan = 0;  // as of Request::streams
  DupFd given[count];      // by number, those that the plan says come along

  // ---- in who asks ----
  void give(int number, DupFd) noexcept;
  // Writes the numbers of those given to `to`, in order.  Returns how many.
  std::size_t list(int* to) const noexcept;

  // ---- in the snapshot ----
  // Takes what a request for a child has brought along, beside its socket.  False: it is not what
  // `wanted` says, or was lost; then the rest of the packet is to be dropped.
  bool claim(std::uint32_t wanted, Packet&) noexcept;

  // ---- in the child ----
  // Requires: standard input is the null device, or what stands for it.
  // Returns 0, or the errno for which one that was to be the null device is not.
  int dup_into_place() const noexcept;
};

}  // namespace evparallel
