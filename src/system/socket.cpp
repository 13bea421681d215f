// socket.cpp - socketpair, sendmsg, recvmsg.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/socket.hpp"

#include "base/retry_eintr.hpp"
#include "base/startup_path.hpp"
#include "system/new_descriptor.hpp"
#include "system/polling.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace evparallel::detail {

namespace {

constexpr int most_pieces = 16;

// Room for the control data of one packet: descriptors and the sender's credentials.
union Control {
  cmsghdr align;
  char bytes[CMSG_SPACE(most_along * sizeof(int)) + CMSG_SPACE(sizeof(ucred))];
};

int type_of(PairKind kind) noexcept {
  switch (kind) {
    case PairKind::stream: return SOCK_STREAM;
    case PairKind::packets: return SOCK_SEQPACKET;
    default: return SOCK_DGRAM;
  }
}

EVPARALLEL_EARLY IoResult flow_of_errno(int number) noexcept {
  switch (number) {
    case EAGAIN:
    case ENOBUFS: return IoResult::would_block;
    case ETOOMANYREFS: return IoResult::retry_later;
    default: return IoResult::closed;
  }
}

// The other end was closed with unread bytes.  The kernel reports that once; on packet sockets it
// does so before the packets that are still to be read here.  The next call reads these, and then
// the end.
template <class Call>
ssize_t read_past_reset(Call call) noexcept {
  ssize_t result;
  do result = retry_on_eintr(call);
  while (result < 0 && errno == ECONNRESET);
  return result;
}

// Room for the descriptors of one write to a stream.
union StreamControl {
  cmsghdr align;
  char bytes[CMSG_SPACE(most_descriptors * sizeof(int))];
};

// Takes ownership of all received descriptors, so that each is closed at the latest with its batch.
void take_batch(msghdr& message, std::vector<ReceivedFds>* batches) noexcept {
  ReceivedFds batch;
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item; item = CMSG_NXTHDR(&message, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    batch.descriptors.resize(count);
    std::memcpy(batch.descriptors.data(), CMSG_DATA(item), count * sizeof(int));
  }
  bool whole = (message.msg_flags & MSG_CTRUNC) == 0;
  for (int& fd : batch.descriptors) whole &= (fd = above_standard_streams(fd)) >= 0;
  // If some were lost, it is unknown which ones the others are.
  if (!whole) batch = ReceivedFds();
  if (batches) batches->push_back(std::move(batch));
}

// Returns where the `size` bytes of the only control item go.  Requires: room in `control` for them.
// The kernel reads the padding, too.
unsigned char* room_for(msghdr& message, char* control, int type, std::size_t size) noexcept {
  std::memset(control, 0, CMSG_SPACE(size));
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(size);
  cmsghdr* item = CMSG_FIRSTHDR(&message);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = type;
  item->cmsg_len = CMSG_LEN(size);
  return CMSG_DATA(item);
}

// Returns the place for the numbers of the `count` descriptors to send.  Requires: room in
// `control` for `count` of them.
unsigned char* room_along(msghdr& message, char* control, std::size_t count) noexcept {
  return room_for(message, control, SCM_RIGHTS, count * sizeof(int));
}

void put_along(msghdr& message, StreamControl& control,
               const std::vector<Attachment>& along) noexcept {
  const std::size_t count = std::min(along.size(), most_descriptors);
  unsigned char* const to = room_along(message, control.bytes, count);
  for (std::size_t i = 0; i < count; ++i)
    std::memcpy(to + i * sizeof(int), &along[i].fd, sizeof(int));
}

// The user has too many descriptors in flight: no event says when the other side has taken some.
void wait_for_room() noexcept {
  constexpr int a_moment_ms = 1;
  pause_for(a_moment_ms);
}

// With SO_LINGER, close(2) waits until the peer has read what was sent, also if the socket does not
// block otherwise.  Fails for other files, which do not linger.
void clear_linger_of(int fd) noexcept {
  constexpr linger off{};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
}

// False: the descriptor was lost in this process.
bool take_descriptor(int fd, Packet& packet) noexcept {
  DupFd superfluous;
  if (fd < 0) return false;
  if (packet.count == most_along) {
    clear_linger_of(fd);
    superfluous = DupFd(fd);
  } else if (packet.count++ == 0) {
    packet.along = OwnedFd(fd);
  } else {
    packet.others[packet.count - 2] = DupFd(fd);
  }
  return true;
}

// Takes ownership of all received descriptors first, so that none leaks if the packet is bad.
void take_control(msghdr& message, Packet& packet) noexcept {
  bool whole = (message.msg_flags & MSG_CTRUNC) == 0;
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item; item = CMSG_NXTHDR(&message, item)) {
    if (item->cmsg_level != SOL_SOCKET) continue;
    if (item->cmsg_type == SCM_CREDENTIALS) {
      ucred credentials;
      std::memcpy(&credentials, CMSG_DATA(item), sizeof credentials);
      packet.sender = credentials.pid;
    } else if (item->cmsg_type == SCM_RIGHTS) {
      const std::size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd;
        std::memcpy(&fd, CMSG_DATA(item) + i * sizeof fd, sizeof fd);
        whole &= take_descriptor(above_standard_streams(fd), packet);
      }
    }
  }
  if (!whole) {
    packet.close();
    packet.lost_descriptor = true;
  }
}

int option_of(int fd, int name) noexcept {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

}  // namespace

void Packet::clear_linger() noexcept {
  if (along) clear_linger_of(along.get());
  for (const DupFd& other : others)
    if (other) clear_linger_of(other.get());
}

void Packet::close() noexcept {
  clear_linger();
  along.close();
  for (DupFd& other : others) other.close();
  count = 0;
}

int make_pair(PairKind kind, OwnedFd& one, OwnedFd& other) noexcept {
  int ends[2];
  if (const int error = open_socket_pair(type_of(kind), ends)) return error;
  one = OwnedFd(ends[0]);
  other = OwnedFd(ends[1]);
  return 0;
}

ReceivedFds::~ReceivedFds() {
  for (const int fd : descriptors) {
    if (fd < 0) continue;
    clear_linger_of(fd);
    ::close(fd);
  }
}

bool descriptor_is_open(int fd) noexcept {
  return ::fcntl(fd, F_GETFD) >= 0;
}

EVPARALLEL_EARLY Transfer receive(int fd, char* to, std::size_t size, Wait wait,
                                  std::vector<ReceivedFds>* batches) noexcept {
  const int flags = MSG_CMSG_CLOEXEC | (wait == Wait::yes ? 0 : MSG_DONTWAIT);
  iovec vector{to, size};
  StreamControl control;
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  const ssize_t got = read_past_reset([&] {
    message.msg_controllen = sizeof control.bytes;
    return ::recvmsg(fd, &message, flags);
  });
  if (got >= 0 && (message.msg_controllen > 0 || message.msg_flags & MSG_CTRUNC))
    take_batch(message, batches);
  if (got > 0) return {IoResult::done, static_cast<std::size_t>(got)};
  if (got == 0) return {IoResult::closed, 0};
  return {flow_of_errno(errno), 0};
}

EVPARALLEL_EARLY Transfer send(int fd, const ByteSpan* pieces, int count, Wait wait,
                               const std::vector<Attachment>* along) noexcept {
  iovec vectors[most_pieces];
  const int used = std::min(count, most_pieces);
  for (int i = 0; i < used; ++i) vectors[i] = {const_cast<char*>(pieces[i].data), pieces[i].size};
  msghdr message{};
  message.msg_iov = vectors;
  message.msg_iovlen = static_cast<std::size_t>(used);
  StreamControl control;
  if (along) put_along(message, control, *along);
  const int flags = MSG_NOSIGNAL | (wait == Wait::yes ? 0 : MSG_DONTWAIT);
  for (;;) {
    const ssize_t put = retry_on_eintr([&] { return ::sendmsg(fd, &message, flags); });
    if (put >= 0) return {IoResult::done, static_cast<std::size_t>(put)};
    const IoResult flow = flow_of_errno(errno);
    if (flow != IoResult::retry_later || wait == Wait::no) return {flow, 0};
    wait_for_room();
  }
}

void half_close(int fd) noexcept {
  ::shutdown(fd, SHUT_WR);
}

namespace {

IoResult put_packet(int fd, const msghdr& message) noexcept {
  const ssize_t put =
      retry_on_eintr([&] { return ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT); });
  return put >= 0 ? IoResult::done : flow_of_errno(errno);
}

}  // namespace

IoResult send_packet(int fd, const void* bytes, std::size_t size, const int* along,
                     std::size_t count) noexcept {
  iovec vector{const_cast<void*>(bytes), size};
  Control control;
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (count > 0)
    std::memcpy(room_along(message, control.bytes, count), along, count * sizeof *along);
  return put_packet(fd, message);
}

IoResult send_packet_from(pid_t pid, int fd, const void* bytes, std::size_t size) noexcept {
  iovec vector{const_cast<void*>(bytes), size};
  Control control;
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  const ucred credentials{pid, ::getuid(), ::getgid()};
  std::memcpy(room_for(message, control.bytes, SCM_CREDENTIALS, sizeof credentials), &credentials,
              sizeof credentials);
  const IoResult put = put_packet(fd, message);
  const bool refused = errno == EPERM || errno == EINVAL;  // EINVAL: the user has no number here
  return put == IoResult::closed && refused ? send_packet(fd, bytes, size, -1) : put;
}

Packet receive_packet(int fd, void* to, std::size_t size) noexcept {
  iovec vector{to, size};
  Control control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  constexpr int flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC;  // the size of all of it
  const ssize_t got = read_past_reset([&] { return ::recvmsg(fd, &message, flags); });
  Packet packet;
  if (got < 0) {
    packet.flow = flow_of_errno(errno);
    return packet;
  }
  take_control(message, packet);
  packet.flow = got == 0 ? IoResult::closed : IoResult::done;
  packet.size = static_cast<std::size_t>(got);
  return packet;
}

bool is_packet_socket(int fd) noexcept {
  return option_of(fd, SO_DOMAIN) == AF_UNIX && option_of(fd, SO_TYPE) == SOCK_SEQPACKET;
}

pid_t maker_of_pair(int fd) noexcept {
  ucred maker{};
  socklen_t size = sizeof maker;
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &maker, &size) == 0 ? maker.pid : -1;
}

void refuse_descriptors(int fd) noexcept {
#ifndef SO_PASSRIGHTS
  constexpr int SO_PASSRIGHTS = 83;
#endif
  const int off = 0;
  ::setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off);
}

bool has_hung_up(int fd) noexcept {
  pollfd what{fd, 0, 0};
  return wait_for(&what, 1, 0) == 1 && (what.revents & POLLHUP);
}

void name_senders(int fd) noexcept {
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
}

}  // namespace evparallel::detail
