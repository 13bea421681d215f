// socket.hpp - the only socket calls.  They handle EINTR, EAGAIN, short transfers and resets.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include "base/byte_span.hpp"
#include "system/descriptor.hpp"

#include <evparallel/detail/attachment.hpp>

#include <sys/types.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace evparallel::detail {

// The outcome of a transfer.
enum class IoResult {
  done,
  would_block,  // not now: wait until the socket is ready
  retry_later,  // not now, and no event says when: too many descriptors are in flight
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

// The descriptors that were sent with one write of the other side.  Those that were not taken (and
// replaced by -1) are closed in the destructor, which waits for no peer of a socket.
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

// The largest number of descriptors in one write; the kernel's SCM_MAX_FD.
constexpr std::size_t most_descriptors = 253;
bool descriptor_is_open(int fd) noexcept;

// Stream sockets.  SIGPIPE is never raised.  Received descriptors are added to `batches`, one batch
// for each write, or closed if `batches` is nullptr; a batch is empty if this process had no room
// for it.  Descriptors are sent with the first byte, or not at all.
Transfer receive(int fd, char* to, std::size_t size, Wait,
                 std::vector<ReceivedFds>* batches = nullptr) noexcept;
Transfer send(int fd, const ByteSpan* pieces, int count, Wait,
              const std::vector<Attachment>* along = nullptr) noexcept;
void half_close(int fd) noexcept;

// Packet sockets with a few descriptors.  ENOBUFS and ETOOMANYREFS (too many descriptors in flight)
// count as `would_block`: they pass when the other side has read.
constexpr std::size_t most_along = 4;
IoResult send_packet(int fd, const void* bytes, std::size_t size, const int* along,
                     std::size_t count) noexcept;
// With one descriptor, or with none: -1.
inline IoResult send_packet(int fd, const void* bytes, std::size_t size, int along) noexcept {
  return send_packet(fd, bytes, size, &along, along >= 0 ? 1 : 0);
}

// The same, without descriptors, with the credentials of process `pid`: a reader in another pid
// namespace that asks for senders gets the pid that this process has there.  If the kernel does not
// permit it, the sender is the calling process.
IoResult send_packet_from(pid_t, int fd, const void* bytes, std::size_t size) noexcept;

// Closes the descriptors that were not taken from it, without a shutdown, in the destructor.
struct Packet {
  Packet() noexcept = default;
  Packet(Packet&&) noexcept = default;
  ~Packet() { close(); }
  void close() noexcept;
  // For descriptors from a process that is not trusted: whoever closes them waits for no peer.
  void clear_linger() noexcept;

  IoResult flow = IoResult::would_block;
  std::size_t size = 0;          // of all of the packet, also if it is longer than the room for it
  OwnedFd along;                 // the first descriptor
  DupFd others[most_along - 1];  // the other descriptors
  std::size_t count = 0;         // of the descriptors that were kept
  bool lost_descriptor =
      false;         // this process had no room for one of the descriptors: all were dropped
  pid_t sender = 0;  // from the kernel, if the socket asks for it
};
Packet receive_packet(int fd, void* to, std::size_t size) noexcept;

// Whether it is one end of a pair of the kind `packets`, and not a socket that only looks like one,
// of another machine for instance.
bool is_packet_socket(int fd) noexcept;
// The process that has made the pair, as the kernel knows it; 0: it has no number here.
pid_t maker_of_pair(int fd) noexcept;

// From now on the other end cannot send descriptors (EPERM), if the kernel has SO_PASSRIGHTS: Linux
// 6.16.
void refuse_descriptors(int fd) noexcept;

// True if the other end is gone, even if there are bytes left to read.
bool has_hung_up(int fd) noexcept;

// From now on packets carry the pid of their sender.
void name_senders(int fd) noexcept;

}  // namespace evparallel::detail
