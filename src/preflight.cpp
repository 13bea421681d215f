// preflight.cpp - threads and descriptors of this process, as /proc tells them.
// Licence: see COPYING.
#include <evparallel/preflight.hpp>

#include "descriptor.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/single_threaded.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

namespace evparallel {

namespace {

constexpr const char* refused_kinds[] = {"eventpoll", "io_uring", "inotify", "userfaultfd"};

struct CloseDirectory {
  void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};

// The numbers that name the entries of a folder, its own descriptor left out.  False: the folder is
// not there.
bool list_numbers(const char* path, std::vector<int>& numbers) {
  std::unique_ptr<DIR, CloseDirectory> directory(::opendir(path));
  if (!directory) return false;
  const int own = ::dirfd(directory.get());
  numbers.clear();
  while (const dirent* entry = ::readdir(directory.get())) {
    char* end = nullptr;
    const long number = std::strtol(entry->d_name, &end, 10);
    if (end != entry->d_name && *end == '\0' && number != own)
      numbers.push_back(static_cast<int>(number));
  }
  return true;
}

std::string first_line(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  char text[64];
  const ssize_t size = ::read(fd, text, sizeof text);
  ::close(fd);
  const std::string all(text, size > 0 ? static_cast<std::size_t>(size) : 0);
  return all.substr(0, all.find('\n'));
}

// unshare(CLONE_VM) does nothing in a process of one thread and fails in another: the only test
// that needs no /proc.
bool kernel_says_threads() noexcept {
  if (::unshare(CLONE_VM) == 0) return false;
  return errno == EINVAL || !__libc_single_threaded;
}

std::vector<PreflightReport::Thread> other_threads() {
  std::vector<PreflightReport::Thread> threads;
  std::vector<int> tids;
  if (!list_numbers("/proc/self/task", tids)) {
    if (kernel_says_threads()) threads.push_back({0, "unknown: /proc is not there"});
    return threads;
  }
  for (const int tid : tids)
    if (tid != ::gettid())
      threads.push_back({tid, first_line("/proc/self/task/" + std::to_string(tid) + "/comm")});
  return threads;
}

// A thread that was just joined may still be listed for a moment.
std::vector<PreflightReport::Thread> settled_threads() {
  constexpr int rounds = 50;
  std::vector<PreflightReport::Thread> threads = other_threads();
  for (int i = 0; i < rounds && !threads.empty(); ++i) {
    ::poll(nullptr, 0, 1);
    threads = other_threads();
  }
  return threads;
}

// "anon_inode:[eventpoll]" -> "eventpoll", "anon_inode:inotify" -> "inotify", "socket:[77]" ->
// "socket".
std::string kind_of(const std::string& target) {
  constexpr std::string_view anonymous = "anon_inode:";
  if (target.compare(0, anonymous.size(), anonymous) == 0) {
    std::string kind = target.substr(anonymous.size());
    kind.erase(
        std::remove_if(kind.begin(), kind.end(), [](char c) { return c == '[' || c == ']'; }),
        kind.end());
    return kind;
  }
  for (const char* kind : {"socket", "pipe"})
    if (target.compare(0, std::string_view(kind).size() + 1, std::string(kind) + ":") == 0)
      return kind;
  return "file";
}

PreflightReport::Descriptor look_at(int fd) {
  PreflightReport::Descriptor descriptor;
  descriptor.fd = fd;
  char target[256];
  const ssize_t size =
      ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof target);
  if (size > 0) descriptor.target.assign(target, static_cast<std::size_t>(size));
  descriptor.kind = kind_of(descriptor.target);
  descriptor.refused = std::any_of(std::begin(refused_kinds), std::end(refused_kinds),
                                   [&](const char* kind) { return descriptor.kind == kind; });
  return descriptor;
}

}  // namespace

PreflightReport preflight() {
  PreflightReport report;
  report.threads = settled_threads();
  std::vector<int> numbers;
  report.descriptors_known = list_numbers("/proc/self/fd", numbers);
  std::sort(numbers.begin(), numbers.end());
  for (const int fd : numbers)
    if (!is_registered(fd)) report.descriptors.push_back(look_at(fd));
  return report;
}

bool PreflightReport::in_the_way() const noexcept {
  return !threads.empty() || std::any_of(descriptors.begin(), descriptors.end(),
                                         [](const Descriptor& d) { return d.refused; });
}

std::string PreflightReport::describe() const {
  std::string text;
  for (const Thread& thread : threads)
    text += (text.empty() ? "" : ", ") + std::string("thread ") + std::to_string(thread.tid) +
            " (" + thread.name + ")";
  for (const Descriptor& descriptor : descriptors)
    if (descriptor.refused)
      text += (text.empty() ? "" : ", ") + std::string("descriptor ") +
              std::to_string(descriptor.fd) + " (" + descriptor.kind + ")";
  return text;
}

}  // namespace evparallel
