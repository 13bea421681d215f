// socket.hpp - the only socket calls.  EINTR, EAGAIN, short transfers and resets are understood
// here and nowhere
// above.
// Licence: see COPYING.
#pragma once

#include "descriptor.hpp"
#include "frame.hpp"

#include <sys/types.h>

#include <cstddef>

namespace evparallel {

// How a transfer went.
enum class Flow {
  done,
  again,  // not now: wait until the socket is ready
  end,    // the other end is gone (end of file, reset, EPIPE)
};

enum class PairKind { stream, packets, datagrams };

// Both ends are close-on-exec.  Returns 0 or an errno.
int make_pair(PairKind, Descriptor& one, Descriptor& other) noexcept;

struct Transfer {
  Flow flow;
  std::size_t size;
};

enum class Wait : bool { no, yes };

// Stream.  SIGPIPE is never raised.
Transfer receive(int fd, char* to, std::size_t size, Wait) noexcept;
Transfer send(int fd, const FrameQueue::Piece* pieces, int count, Wait) noexcept;
void half_close(int fd) noexcept;

// Packets with at most one descriptor along.  ENOBUFS and ETOOMANYREFS (too many descriptors in
// flight) count as `again`: they pass when the other side has read.
Flow send_packet(int fd, const void* bytes, std::size_t size, int along) noexcept;

struct Packet {
  Flow flow = Flow::again;
  std::size_t size = 0;
  Descriptor along;
  bool lost_descriptor = false;  // one was sent, and this process had no room for it
  pid_t sender = 0;              // as the kernel states it, where the socket asks for it
};
Packet receive_packet(int fd, void* to, std::size_t size) noexcept;

// The other end is gone, whatever is left to read here.
bool has_hung_up(int fd) noexcept;

// From now on packets name their sender.
void name_senders(int fd) noexcept;

}  // namespace evparallel
