// program.hpp - a program in a process of its own, which gets signals from outside, and its terminal.
#pragma once

#include "elsewhere.hpp"
#include "testing.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

namespace testing {

struct Tube {
  Tube() {
    if (::pipe2(fds, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  }
  Tube(const Tube&) = delete;
  Tube& operator=(const Tube&) = delete;
  ~Tube() {
    ::close(fds[0]);
    ::close(fds[1]);
  }
  template <class T>
  bool put(const T& value) const {
    return ::write(fds[1], &value, sizeof value) == static_cast<ssize_t>(sizeof value);
  }
  template <class T>
  bool take(T& value) const {
    return ::read(fds[0], &value, sizeof value) == static_cast<ssize_t>(sizeof value);
  }
  int fds[2];
};

// A program in a process of its own, optionally at a terminal of its own, from which it reads.
class Program {
public:
  explicit Program(const std::function<int()>& f, const char* terminal = nullptr) {
    pid_ = ::fork();
    if (pid_ != 0) return;
    int status = 99;
    try {
      ::setsid();
      if (terminal != nullptr) sit_down_at(terminal);
      status = f();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "# program: %s\n", error.what());
    }
    testing::look_for_leaks();
    ::_exit(status);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (pid_ > 0) end();
  }
  pid_t pid() const { return pid_; }
  // The result of the program, or 100 + the signal that ended it; -1: it does not end.
  int end() {
    int status = 0;
    const pid_t pid = std::exchange(pid_, 0);
    if (testing::eventually([&] { return ::waitpid(pid, &status, WNOHANG) == pid; }))
      return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return -1;
  }

private:
  static void sit_down_at(const char* terminal) {
    const int fd = ::open(terminal, O_RDWR);
    if (fd < 0 || ::ioctl(fd, TIOCSCTTY, 0) != 0 || ::dup2(fd, STDIN_FILENO) < 0)
      throw std::runtime_error("no terminal");
    ::close(fd);
  }
  pid_t pid_ = 0;
};

class Terminal {
public:
  Terminal() : master_(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    if (master_ < 0 || ::grantpt(master_) != 0 || ::unlockpt(master_) != 0)
      throw std::runtime_error("no terminal");
    name_ = ::ptsname(master_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() { ::close(master_); }
  const char* name() const { return name_.c_str(); }
  void set_width(unsigned short columns) const {
    const winsize size{24, columns, 0, 0};
    if (::ioctl(master_, TIOCSWINSZ, &size) != 0) throw std::runtime_error("no size");
  }
  // What is written to it until `end` comes; with no `end`, until no process has it open any more.
  std::string read_until(const std::string& end) const {
    std::string text;
    char c;
    while ((end.empty() || text.find(end) == std::string::npos) && ::read(master_, &c, 1) == 1)
      text += c;
    return text;
  }
  bool press(char key) const { return ::write(master_, &key, 1) == 1; }

private:
  int master_;
  std::string name_;
};

constexpr char ctrl_c = 3;
constexpr char ctrl_backslash = 28;

}  // namespace testing
