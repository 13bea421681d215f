// tcp_pair.hpp - two connected TCP sockets of this process, one of which lingers when it is closed.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stdexcept>

namespace testing {

// The first one has sent as much as fits, which the second has not read; a close of the first one would wait for that.
class TcpPair {
public:
  TcpPair() {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    fds[0] = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool connected = ::bind(listener, generic, size) == 0 && ::listen(listener, 1) == 0 &&
                           ::getsockname(listener, generic, &size) == 0 &&
                           ::connect(fds[0], generic, size) == 0;
    if (connected) fds[1] = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    ::close(listener);
    if (fds[1] < 0) throw std::runtime_error("no TCP connection");
    const linger minutes{1, 300};
    ::setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &minutes, sizeof minutes);
    constexpr std::array<char, 65536> bytes{};
    while (::send(fds[0], bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {}
  }
  TcpPair(const TcpPair&) = delete;
  TcpPair& operator=(const TcpPair&) = delete;
  ~TcpPair() {
    clear_linger();
    close(0);
    close(1);
  }
  bool lingers() const {
    linger now{};
    socklen_t size = sizeof now;
    ::getsockopt(fds[0], SOL_SOCKET, SO_LINGER, &now, &size);
    return now.l_onoff != 0;
  }
  void clear_linger() {
    constexpr linger off{};
    ::setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &off, sizeof off);
  }
  void close(int which) {
    if (fds[which] >= 0) ::close(fds[which]);
    fds[which] = -1;
  }

  int fds[2] = {-1, -1};
};

}  // namespace testing
