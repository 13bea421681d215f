// preflight.cpp - examines this process: threads, descriptors, signals, timers, streams.
// Runs in: parent.  Licence: see COPYING.
#include <evparallel/preflight.hpp>

#include "base/names.hpp"
#include "spawn/runtime_threads.hpp"
#include "system/descriptor.hpp"
#include "system/flush_streams.hpp"
#include "system/fork.hpp"
#include "system/new_descriptor.hpp"
#include "system/polling.hpp"
#include "system/text_file.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/single_threaded.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>
#include <string_view>
#include <utility>

namespace evparallel {

using namespace detail;

namespace {

constexpr const char* refused_kinds[] = {"eventpoll", "io_uring", "inotify", "userfaultfd"};

struct CloseDirectory {
  void operator()(DIR* directory) const noexcept { ::closedir(directory); }
};

// Lists the entries of a folder whose names are numbers, except its own descriptor.  False: there
// is no such folder.
bool list_numbers(const char* path, std::vector<int>& numbers) {
  const int fd = open_file(path, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return false;
  std::unique_ptr<DIR, CloseDirectory> directory(::fdopendir(fd));
  if (!directory) {
    ::close(fd);
    return false;
  }
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
  std::string all;
  read_text_file(path, all);
  return all.substr(0, all.find('\n'));
}

// unshare(CLONE_VM) does nothing in a single-threaded process and fails in another: the only test
// that needs no /proc.
bool kernel_says_threads() noexcept {
  if (::unshare(CLONE_VM) == 0) return false;
  return errno == EINVAL || !__libc_single_threaded;
}

// The number in /proc, which may be that of another pid namespace.  0: /proc does not say.
int number_of_this_thread() {
  char path[64] = {};
  if (::readlink("/proc/thread-self", path, sizeof path - 1) <= 0) return 0;
  const char* const name = std::strrchr(path, '/');
  return name ? std::atoi(name + 1) : 0;
}

std::vector<PreflightReport::Thread> other_threads() {
  std::vector<PreflightReport::Thread> threads;
  std::vector<int> tids;
  if (!list_numbers("/proc/self/task", tids)) {
    if (kernel_says_threads()) threads.push_back({0, "/proc is not available"});
    return threads;
  }
  if (tids.size() == 1) return threads;
  tids.erase(std::remove(tids.begin(), tids.end(), number_of_this_thread()), tids.end());
  leave_out_runtime_threads(tids);
  for (const int tid : tids)
    threads.push_back({tid, first_line("/proc/self/task/" + std::to_string(tid) + "/comm")});
  return threads;
}

// A thread that was just joined may be listed for a short time.
std::vector<PreflightReport::Thread> settled_threads() {
  constexpr int rounds = 50;
  std::vector<PreflightReport::Thread> threads = other_threads();
  for (int i = 0; i < rounds && !threads.empty(); ++i) {
    pause_for(1);
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

std::string target_of(int fd) {
  char target[PATH_MAX];
  const ssize_t size =
      ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof target);
  return size > 0 ? std::string(target, static_cast<std::size_t>(size)) : std::string();
}

// ---- files ----

// The file is read through the program's own descriptor: to open it and close that again would
// release all locks that the program has on it.  A file without blocks is one that the kernel makes
// up, and reading such a file may wait or change something.
bool begins_like_sqlite(int fd, const struct stat& status) {
  constexpr std::string_view header("SQLite format 3\0", 16);
  constexpr off_t smallest_database = 512;
  if (status.st_size < smallest_database || status.st_blocks == 0) return false;
  char bytes[header.size()];
  return ::pread(fd, bytes, sizeof bytes, 0) == static_cast<ssize_t>(sizeof bytes) &&
         std::string_view(bytes, sizeof bytes) == header;
}

// The target of an unnamed file is no path, and nothing is beside it.
bool has_journal(const std::string& path) {
  if (path.compare(0, 1, "/") != 0) return false;
  return ::access((path + "-wal").c_str(), F_OK) == 0 ||
         ::access((path + "-journal").c_str(), F_OK) == 0;
}

void read_mode(const std::string& octal, PreflightReport::File& file) {
  const unsigned long flags = std::strtoul(octal.c_str(), nullptr, 8);
  if (flags & O_PATH) return;
  const unsigned long mode = flags & O_ACCMODE;
  file.read = mode == O_RDONLY || mode == O_RDWR;
  file.write = mode == O_WRONLY || mode == O_RDWR;
  file.append = (flags & O_APPEND) != 0;
}

// "1: POSIX  ADVISORY  WRITE 4711 fe:00:861 0 EOF"
void add_lock(const std::string& description, std::vector<std::string>& locks) {
  std::istringstream words(description);
  std::string number;
  std::string kind;
  if (words >> number >> kind && std::find(locks.begin(), locks.end(), kind) == locks.end())
    locks.push_back(kind);
}

std::optional<PreflightReport::File> look_at_file(int fd, const std::string& path) {
  struct stat status {};
  std::string text;
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  if (!read_text_file("/proc/self/fdinfo/" + std::to_string(fd), text)) return std::nullopt;
  PreflightReport::File file;
  std::istringstream list(text);
  for (std::string label; list >> label;) {
    std::string rest;
    std::getline(list, rest);
    if (label == "flags:") read_mode(rest, file);
    if (label == "lock:") add_lock(rest, file.locks);
  }
  if (file.read && begins_like_sqlite(fd, status))
    file.database = "SQLite";
  else if (has_journal(path))
    file.database = "journal";
  return file;
}

PreflightReport::Descriptor look_at(int fd) {
  PreflightReport::Descriptor descriptor;
  descriptor.fd = fd;
  descriptor.target = target_of(fd);
  descriptor.kind = kind_of(descriptor.target);
  descriptor.refused = std::any_of(std::begin(refused_kinds), std::end(refused_kinds),
                                   [&](const char* kind) { return descriptor.kind == kind; });
  if (descriptor.kind == "file") descriptor.file = look_at_file(fd, descriptor.target);
  return descriptor;
}

// ---- signals ----

void name_handler(void* address, PreflightReport::Handler& handler) {
  Dl_info info{};
  if (::dladdr(address, &info) == 0) return;
  const auto distance = [address](const void* from) {
    char text[32];
    std::snprintf(
        text, sizeof text, "+0x%zx",
        static_cast<std::size_t>(static_cast<char*>(address) - static_cast<const char*>(from)));
    return std::string(text);
  };
  if (info.dli_fname) handler.module = info.dli_fname;
  if (!info.dli_sname) {
    handler.symbol = distance(info.dli_fbase);
  } else {
    handler.symbol = demangled(info.dli_sname);
    if (info.dli_saddr != address) handler.symbol += distance(info.dli_saddr);
  }
}

std::vector<PreflightReport::Handler> changed_signals() {
  std::vector<PreflightReport::Handler> handlers;
  for (int signum = 1; signum < NSIG; ++signum) {
    struct sigaction action {};
    if (::sigaction(signum, nullptr, &action) != 0) continue;
    const bool wants_info = (action.sa_flags & SA_SIGINFO) != 0;
    if (!wants_info && action.sa_handler == SIG_DFL) continue;
    PreflightReport::Handler handler;
    handler.signum = signum;
    handler.signal = signal_name(signum);
    handler.ignored = !wants_info && action.sa_handler == SIG_IGN;
    if (!handler.ignored)
      name_handler(wants_info ? reinterpret_cast<void*>(action.sa_sigaction)
                              : reinterpret_cast<void*>(action.sa_handler),
                   handler);
    handlers.push_back(std::move(handler));
  }
  return handlers;
}

// ---- timers ----

std::chrono::microseconds time_of(const timeval& time) {
  return std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
}
std::chrono::microseconds time_of(const timespec& time) {
  return std::chrono::seconds(time.tv_sec) +
         std::chrono::ceil<std::chrono::microseconds>(std::chrono::nanoseconds(time.tv_nsec));
}

void add_interval_timers(std::vector<PreflightReport::Timer>& timers) {
  const struct {
    __itimer_which which;
    const char* kind;
  } all[] = {{ITIMER_REAL, "real"}, {ITIMER_VIRTUAL, "virtual"}, {ITIMER_PROF, "profile"}};
  for (const auto& each : all) {
    itimerval now{};
    if (::getitimer(each.which, &now) != 0) continue;
    if (now.it_value.tv_sec == 0 && now.it_value.tv_usec == 0) continue;
    timers.push_back({each.kind, -1, time_of(now.it_value), time_of(now.it_interval)});
  }
}

// False: the kernel does not list them, or by numbers of another program, like qemu-user.
bool add_posix_timers(std::vector<PreflightReport::Timer>& timers) {
  std::string text;
  if (!read_text_file("/proc/self/timers", text)) return false;
  bool known = true;
  std::istringstream list(text);
  for (std::string line; std::getline(list, line);) {
    constexpr std::string_view label = "ID: ";
    if (line.compare(0, label.size(), label) != 0) continue;
    const int id = std::atoi(line.c_str() + label.size());
    itimerspec now{};  // not timer_gettime(3): its timer_t is private to the C library
    if (::syscall(SYS_timer_gettime, id, &now) != 0) {
      known = false;
      continue;
    }
    if (now.it_value.tv_sec == 0 && now.it_value.tv_nsec == 0) continue;
    timers.push_back({"posix", id, time_of(now.it_value), time_of(now.it_interval)});
  }
  return known;
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
  report.handlers = changed_signals();
  add_interval_timers(report.timers);
  report.timers_known = add_posix_timers(report.timers);
  for (const PendingOutput& stream : unflushed_streams())
    report.streams.push_back({stream.stream, stream.bytes});
  return report;
}

}  // namespace evparallel
