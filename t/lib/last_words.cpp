// last_words.cpp - text that is prepared while a case runs: a signal handler may end the case, and must not allocate.
#include "last_words.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace testing {
namespace {

// A text that is complete whenever a signal arrives.
class Kept {
public:
  void clear() { size_ = 0; }
  bool empty() const { return size_ == 0; }
  void add(const char* text, std::size_t size) {
    const auto before = static_cast<std::size_t>(size_);
    size = std::min(size, sizeof text_ - before);
    std::memcpy(text_ + before, text, size);
    size_ = static_cast<sig_atomic_t>(before + size);
  }
  std::string text() const { return {text_, static_cast<std::size_t>(size_)}; }
  void write() const {
    if (::write(STDOUT_FILENO, text_, static_cast<std::size_t>(size_)) < 0) return;
  }

private:
  char text_[4096] = {};
  volatile sig_atomic_t size_ = 0;
};

constexpr std::size_t longest_line = 500;

Kept known;      // about the current case
Kept seed_line;  // not yet known to be relevant

void write_text(const char* text) {
  if (::write(STDOUT_FILENO, text, std::strlen(text)) < 0) return;
}

std::size_t read_file(const char* path, char* out, std::size_t room) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t got = ::read(fd, out, room - 1);
  ::close(fd);
  const std::size_t size = got > 0 ? static_cast<std::size_t>(got) : 0;
  out[size] = 0;
  return size;
}

// The numbers in a text.
std::size_t pids_in(const char* text, pid_t* out, std::size_t room) {
  std::size_t count = 0;
  for (pid_t pid = 0; *text != 0 && count < room; ++text) {
    if (*text >= '0' && *text <= '9') {
      pid = pid * 10 + (*text - '0');
    } else if (pid != 0) {
      out[count++] = pid;
      pid = 0;
    }
  }
  return count;
}

std::size_t children_in(const char* path, pid_t* out, std::size_t room) {
  char text[4096];
  return read_file(path, text, sizeof text) != 0 ? pids_in(text, out, room) : 0;
}

std::size_t own_children(pid_t* out, std::size_t room) {
  return children_in("/proc/thread-self/children", out, room);
}

void write_process(pid_t pid, const char* indent) {
  char path[64];
  char name[64];
  char line[256];
  std::snprintf(path, sizeof path, "/proc/%d/comm", pid);
  if (read_file(path, name, sizeof name) == 0) return;
  name[std::strcspn(name, "\n")] = 0;
  std::snprintf(line, sizeof line, "#%s process %d %s is left\n", indent, pid, name);
  write_text(line);
}

// The children, and the children of a snapshot among them.
void write_processes() {
  pid_t children[64];
  pid_t of_child[64];
  char path[64];
  const std::size_t count = own_children(children, 64);
  for (std::size_t i = 0; i < count; ++i) {
    write_process(children[i], "  ");
    std::snprintf(path, sizeof path, "/proc/%d/task/%d/children", children[i], children[i]);
    const std::size_t more = children_in(path, of_child, 64);
    for (std::size_t k = 0; k < more; ++k) write_process(of_child[k], "    ");
  }
}

}  // namespace

void write_out(const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    done += static_cast<std::size_t>(n);
  }
}

void forget_evidence() {
  known.clear();
  seed_line.clear();
}

void note_evidence(const std::string& line) {
  const std::string kept = "#   " + line.substr(0, longest_line) + "\n";
  if (known.text().size() + kept.size() <= 8 * longest_line) known.add(kept.data(), kept.size());
}

std::string evidence() {
  return known.text();
}

void set_seed(unsigned long seed) {
  const std::string line = "#   TEST_SEED=" + std::to_string(seed) + "\n";
  seed_line.clear();
  seed_line.add(line.data(), line.size());
}

void note_seed() {
  const std::string line = seed_line.text();
  if (!line.empty()) note_evidence(line.substr(4, line.size() - 5));
  seed_line.clear();
}

void say_last(const char* first_line) {
  write_text(first_line);
  known.write();
  seed_line.write();
  write_processes();
}

void kill_everything() {
  pid_t pids[256];
  for (int turn = 0; turn < 500; ++turn) {
    const std::size_t count = own_children(pids, 256);
    if (count == 0) return;
    for (std::size_t i = 0; i < count; ++i) {
      const pid_t group = ::getpgid(pids[i]);
      if (group > 0 && group != ::getpgrp()) ::kill(-group, SIGKILL);
      ::kill(pids[i], SIGKILL);
    }
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {}
    ::poll(nullptr, 0, 1);
  }
}

}  // namespace testing
