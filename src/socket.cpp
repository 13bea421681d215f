// socket.cpp - socketpair, sendmsg, recvmsg.
// Licence: see COPYING.
#include "socket.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace evparallel {

namespace {

constexpr int most_pieces = 16;

// Room for what one packet may carry: one descriptor and the sender's credentials.
union Control {
  cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(ucred))];
};

int type_of(PairKind kind) noexcept {
  switch (kind) {
    case PairKind::stream: return SOCK_STREAM;
    case PairKind::packets: return SOCK_SEQPACKET;
    default: return SOCK_DGRAM;
  }
}

Flow flow_of_errno(int number) noexcept {
  switch (number) {
    case EAGAIN:
    case ENOBUFS:
    case ETOOMANYREFS: return Flow::again;
    default: return Flow::end;
  }
}

template <class Call>
ssize_t retried(Call call) noexcept {
  ssize_t result;
  do result = call();
  while (result < 0 && errno == EINTR);
  return result;
}

// The other end was closed with something unread: the kernel says so once, on packets before what
// is still to be read here, and asking again reads that, and then the end.
template <class Call>
ssize_t read_past_reset(Call call) noexcept {
  ssize_t result;
  do result = retried(call);
  while (result < 0 && errno == ECONNRESET);
  return result;
}

// Everything that came along is taken over first, so that nothing leaks whatever the packet turns
// out to be.
void take_control(msghdr& message, Packet& packet) noexcept {
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
        packet.along.drop();
        packet.along = Descriptor(fd);
      }
    }
  }
  if (message.msg_flags & MSG_CTRUNC) {
    packet.along.drop();
    packet.lost_descriptor = true;
  }
}

}  // namespace

int make_pair(PairKind kind, Descriptor& one, Descriptor& other) noexcept {
  int ends[2];
  if (::socketpair(AF_UNIX, type_of(kind) | SOCK_CLOEXEC, 0, ends) != 0) return errno;
  one = Descriptor(ends[0]);
  other = Descriptor(ends[1]);
  return 0;
}

Transfer receive(int fd, char* to, std::size_t size, Wait wait) noexcept {
  const int flags = wait == Wait::yes ? 0 : MSG_DONTWAIT;
  const ssize_t got = read_past_reset([&] { return ::recv(fd, to, size, flags); });
  if (got > 0) return {Flow::done, static_cast<std::size_t>(got)};
  if (got == 0) return {Flow::end, 0};
  return {flow_of_errno(errno), 0};
}

Transfer send(int fd, const FrameQueue::Piece* pieces, int count, Wait wait) noexcept {
  iovec vectors[most_pieces];
  const int used = std::min(count, most_pieces);
  for (int i = 0; i < used; ++i) vectors[i] = {const_cast<char*>(pieces[i].data), pieces[i].size};
  msghdr message{};
  message.msg_iov = vectors;
  message.msg_iovlen = static_cast<std::size_t>(used);
  const int flags = MSG_NOSIGNAL | (wait == Wait::yes ? 0 : MSG_DONTWAIT);
  const ssize_t put = retried([&] { return ::sendmsg(fd, &message, flags); });
  if (put >= 0) return {Flow::done, static_cast<std::size_t>(put)};
  return {flow_of_errno(errno), 0};
}

void half_close(int fd) noexcept {
  ::shutdown(fd, SHUT_WR);
}

Flow send_packet(int fd, const void* bytes, std::size_t size, int along) noexcept {
  iovec vector{const_cast<void*>(bytes), size};
  Control control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (along >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof along);
    cmsghdr* item = CMSG_FIRSTHDR(&message);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof along);
    std::memcpy(CMSG_DATA(item), &along, sizeof along);
  }
  const ssize_t put = retried([&] { return ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT); });
  return put >= 0 ? Flow::done : flow_of_errno(errno);
}

Packet receive_packet(int fd, void* to, std::size_t size) noexcept {
  iovec vector{to, size};
  Control control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  const ssize_t got =
      read_past_reset([&] { return ::recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC); });
  Packet packet;
  if (got < 0) {
    packet.flow = flow_of_errno(errno);
    return packet;
  }
  take_control(message, packet);
  packet.flow = got == 0 ? Flow::end : Flow::done;
  packet.size = static_cast<std::size_t>(got);
  return packet;
}

bool has_hung_up(int fd) noexcept {
  pollfd what{fd, 0, 0};
  return ::poll(&what, 1, 0) == 1 && (what.revents & POLLHUP);
}

void name_senders(int fd) noexcept {
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
}

}  // namespace evparallel
