// socket.hpp - the only socket calls.  EINTR, EAGAIN, short transfers and resets are understood
// here and nowhere
// above.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include "base/byte_span.hpp"
#include "system/descriptor.hpp"

#include <evparallel/detail/attachment.hpp>

#include <sys/types.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace evparallel {

// How a transfer went.
enum class IoResult {
  done,
  would_block,  // not now: wait until the socket is ready
  retry_later,  // not now, and nothing tells when: too many descriptors are under way
  closed,       // the other end is gone (end of file, reset, EPIPE)
};

enum class PairKind { stream, packets, datagrams };

// Both ends are close-on-exec.  Returns 0 or an errno.
int make_pair(PairKind, OwnedFd& one, OwnedFd& other) noexcept;

struct Transfer {
  IoResult flow;
  std::size_t size;
};

enum class Wait : bool { no, yes };

// The descriptors that came along with one write of the other side.  Those that nobody has taken
// (and replaced by -1) are closed with it.
class ReceivedFds {
public:
  ReceivedFds() noexcept = default;
  ReceivedFds(ReceivedFds&& other) noexcept : descriptors(std::exchange(other.descriptors, {})) {}
  ReceivedFds& operator=(ReceivedFds&& other) noexcept {
    descriptors.swap(other.descriptors);
    return *this;
  }
  ~ReceivedFds();

  std::vector<int> descriptors{};
};

// The most descriptors that go along with one write; the kernel's SCM_MAX_FD.
constexpr std::size_t most_descriptors = 253;
bool descriptor_is_open(int fd) noexcept;

// Stream.  SIGPIPE is never raised.  What comes along is added to `batches`, or closed where nobody
// asks for it; an empty one where this process had no room for it.  What goes along goes with the
// first byte, or not at all.
Transfer receive(int fd, char* to, std::size_t size, Wait,
                 std::vector<ReceivedFds>* batches = nullptr) noexcept;
Transfer send(int fd, const ByteSpan* pieces, int count, Wait,
              const std::vector<Attachment>* along = nullptr) noexcept;
void half_close(int fd) noexcept;

// Packets with some descriptors along.  ENOBUFS and ETOOMANYREFS (too many descriptors in
// flight) count as `again`: they pass when the other side has read.
constexpr std::size_t most_along = 4;
IoResult send_packet(int fd, const void* bytes, std::size_t size, const int* along,
                     std::size_t count) noexcept;
// With one, or with none: -1.
inline IoResult send_packet(int fd, const void* bytes, std::size_t size, int along) noexcept {
  return send_packet(fd, bytes, size, &along, along >= 0 ? 1 : 0);
}

// The same, without descriptors, in the name of that process: who reads it elsewhere and asks for senders
// is told by which number it knows it.  Where the kernel does not let us, this process is the sender.
IoResult send_packet_from(pid_t, int fd, const void* bytes, std::size_t size) noexcept;

// What was not taken out of it is closed, without a shutdown, when it is destroyed.
struct Packet {
  Packet() noexcept = default;
  Packet(Packet&&) noexcept = default;
  ~Packet() { drop(); }
  void drop() noexcept;

  IoResult flow = IoResult::would_block;
  std::size_t size = 0;
  OwnedFd along;                 // the first that came
  DupFd others[most_along - 1];  // those behind it
  std::size_t count = 0;         // of those that were kept
  bool lost_descriptor =
      false;         // of those that were sent this process had no room for one: none came
  pid_t sender = 0;  // as the kernel states it, where the socket asks for it
};
Packet receive_packet(int fd, void* to, std::size_t size) noexcept;

// The other end is gone, whatever is left to read here.
bool has_hung_up(int fd) noexcept;

// From now on packets name their sender.
void name_senders(int fd) noexcept;

}  // namespace evparallel
