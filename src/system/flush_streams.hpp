// flush_streams.hpp - what the program has printed and is not written yet.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstddef>
#include <vector>

namespace evparallel {

// Writes what stdio and the C++ streams hold: of all streams where no other thread can hold a lock,
// else of stdout and stderr.  Where nothing waits it looks only, and writes no memory.  What nobody
// reads any more is lost: that is said once, on standard error, and raises no SIGPIPE.
void flush_streams() noexcept;

// From now on the C++ streams of standard stream 1 or 2 keep nothing back, where they have buffers of
// their own: a crash would leave it there.
void write_each_piece(int number) noexcept;

// Bytes that were printed and are not written yet, in the streams whose insides can be looked at.
struct PendingOutput {
  const char* stream;
  std::size_t bytes;
};
std::vector<PendingOutput> unflushed_streams();

}  // namespace evparallel
