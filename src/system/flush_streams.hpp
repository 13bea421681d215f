// flush_streams.hpp - output that the program has printed and that is not written yet.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstddef>
#include <vector>

namespace evparallel::detail {

// Writes what the buffers of stdio and of the C++ streams hold: of all streams if no other thread
// can hold a lock, else of stdout and stderr.  If nothing is pending it only reads, and writes no
// memory.  Output that has no reader any more is lost: a message on standard error says so once,
// and no SIGPIPE is raised.
void flush_streams() noexcept;

// From now on the C++ streams of standard stream 1 or 2 hold nothing back if they have buffers of
// their own: a crash would lose what is in them.
void write_each_piece(int number) noexcept;

// Bytes that were printed and are not written yet, in the streams whose buffers can be examined.
struct PendingOutput {
  const char* stream;
  std::size_t bytes;
};
std::vector<PendingOutput> unflushed_streams();

}  // namespace evparallel::detail
