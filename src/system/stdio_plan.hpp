// stdio_plan.hpp - the standard streams of a child, from the requesting process to their numbers.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include "system/socket.hpp"

#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

// Bits of a plan, for standard stream `number`.  Without a bit the stream is that of the snapshot.
// The stream is sent as a descriptor; the descriptors come in order of number.
constexpr std::uint32_t stream_comes(int number) noexcept {
  return std::uint32_t{1} << number;
}
// The stream is a copy of the snapshot's standard input.
constexpr std::uint32_t stream_null(int number) noexcept {
  return std::uint32_t{8} << number;
}
// The stream is written line by line.
constexpr std::uint32_t stream_by_lines(int number) noexcept {
  return std::uint32_t{64} << number;
}

struct StdioPlan {
  static constexpr int count = 3;

  std::uint32_t plan = 0;  // as in Request::streams
  DupFd given[count];      // by number, those that the plan says are sent

  // ---- in the requesting process ----
  void give(int number, DupFd) noexcept;
  // Writes the given descriptors to `to`, in order of number.  Returns how many.
  std::size_t list(int* to) const noexcept;

  // ---- in the snapshot ----
  // Takes the descriptors of a request for a child, except its socket.  Returns false if they are
  // not those that `wanted` says, or were lost; then the caller drops the rest of the packet.
  bool claim(std::uint32_t wanted, Packet&) noexcept;

  // ---- in the child ----
  // Requires: standard input is the null device, or its substitute.
  // Returns 0, or the errno for which a stream that should be the null device is not.
  int dup_into_place() const noexcept;
};

}  // namespace evparallel::detail
