// floor.hpp - the lower bound: plain system calls, without checks.
#pragma once

#include "measure.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace bench {

struct Sockets {
  int near = -1;
  int far = -1;
};

inline Sockets socket_pair(int type) {
  int ends[2];
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::runtime_error("no socket pair");
  return {ends[0], ends[1]};
}

inline void read_all(int fd, char* to, std::size_t size) {
  while (size > 0) {
    const ssize_t got = ::read(fd, to, size);
    if (got <= 0) throw std::runtime_error("the far side is gone");
    to += got;
    size -= static_cast<std::size_t>(got);
  }
}
inline void write_all(int fd, const char* from, std::size_t size) {
  while (size > 0) {
    const ssize_t put = ::write(fd, from, size);
    if (put <= 0) throw std::runtime_error("the far side is gone");
    from += put;
    size -= static_cast<std::size_t>(put);
  }
}

// A child that answers each message of `size` bytes with the same bytes.
[[noreturn]] inline void echo(int fd, std::size_t size) {
  std::string message(size, '\0');
  for (;;) {
    std::size_t have = 0;
    while (have < size) {
      const ssize_t got = ::read(fd, message.data() + have, size - have);
      if (got <= 0) ::_exit(0);
      have += static_cast<std::size_t>(got);
    }
    write_all(fd, message.data(), size);
  }
}

// The near end of the socket to one.
inline int echo_child(Cpus where, std::size_t size) {
  return place(where, [size] {
    const Sockets data = socket_pair(SOCK_STREAM);
    if (::fork() == 0) {
      ::close(data.near);
      echo(data.far, size);
    }
    ::close(data.far);
    return data.near;
  });
}

// The raw child of a spawn: it reads 8 bytes, and writes its page faults.
[[noreturn]] inline void first_answer(int fd) {
  char request[8];
  if (::read(fd, request, sizeof request) != sizeof request) ::_exit(0);
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const long faults = usage.ru_minflt;
  if (::write(fd, &faults, sizeof faults) != sizeof faults) ::_exit(0);
  // Lives until the parent closes its end, as a child of the library does.
  if (::read(fd, request, 1) != 0) ::_exit(1);
  ::_exit(0);
}

// ---- a snapshot in its plainest form ----

class RawSnapshot {
public:
  RawSnapshot() {
    const Sockets control = socket_pair(SOCK_SEQPACKET);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(control.near);
      serve(control.far);
    }
    ::close(control.far);
    control_ = control.near;
  }
  ~RawSnapshot() {
    ::close(control_);
    ::kill(pid_, SIGKILL);  // a later snapshot holds a copy of control_
    ::waitpid(pid_, nullptr, 0);
  }
  RawSnapshot(const RawSnapshot&) = delete;
  RawSnapshot& operator=(const RawSnapshot&) = delete;

  // The near end of the socket to a new child.
  int spawn() const {
    const Sockets data = socket_pair(SOCK_STREAM);
    char byte = 0;
    iovec vector{&byte, 1};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))]{};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    cmsghdr* item = CMSG_FIRSTHDR(&message);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(item), &data.far, sizeof(int));
    if (::sendmsg(control_, &message, 0) != 1) throw std::runtime_error("the snapshot is gone");
    ::close(data.far);
    return data.near;
  }

private:
  [[noreturn]] static void serve(int control) {
    for (;;) {
      char byte;
      iovec vector{&byte, 1};
      alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))]{};
      msghdr message{};
      message.msg_iov = &vector;
      message.msg_iovlen = 1;
      message.msg_control = space;
      message.msg_controllen = sizeof space;
      if (::recvmsg(control, &message, MSG_CMSG_CLOEXEC) <= 0) ::_exit(0);
      int fd;
      std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
      if (::fork() == 0) {
        ::close(control);
        first_answer(fd);
      }
      ::close(fd);
      while (::waitpid(-1, nullptr, WNOHANG) > 0) {}
    }
  }

  pid_t pid_ = -1;
  int control_ = -1;
};

// One spawn by it, up to the first answer.  Returns the page faults of the child.
inline long raw_first_answer(int fd) {
  const char request[8] = {};
  write_all(fd, request, sizeof request);
  long faults = 0;
  read_all(fd, reinterpret_cast<char*>(&faults), sizeof faults);
  return faults;
}

// The same with fork alone.
inline int fork_child() {
  const Sockets data = socket_pair(SOCK_STREAM);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::close(data.near);
    first_answer(data.far);
  }
  ::close(data.far);
  return data.near;
}

// Up to its first answer.
inline double by_fork() {
  const double start = now();
  const int fd = fork_child();
  raw_first_answer(fd);
  const double end = now();
  ::close(fd);
  ::wait(nullptr);
  return end - start;
}

}  // namespace bench
