// process.cpp - processes as /proc shows them.
#include "process.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace testing {

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  const std::string tasks = "/proc/" + std::to_string(parent) + "/task";
  DIR* dir = ::opendir(tasks.c_str());
  if (dir == nullptr) return children;  // the process has ended
  while (const dirent* entry = ::readdir(dir)) {
    if (entry->d_name[0] == '.') continue;
    std::ifstream file(tasks + "/" + entry->d_name + "/children");
    for (pid_t pid = 0; file >> pid;) children.push_back(pid);
  }
  ::closedir(dir);
  return children;
}

static int count_threads(pid_t pid) {
  DIR* dir = ::opendir(("/proc/" + std::to_string(pid) + "/task").c_str());
  if (dir == nullptr) return 0;
  int threads = 0;
  while (const dirent* entry = ::readdir(dir)) threads += entry->d_name[0] != '.';
  ::closedir(dir);
  return threads;
}

char state_of(pid_t pid) {
  char text[512];
  const int fd = ::open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return '-';
  const ssize_t size = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  if (size <= 0) return '-';
  text[size] = 0;
  const char* const name_end = std::strrchr(text, ')');  // the name may contain brackets
  return name_end && name_end[1] ? name_end[2] : '-';
}

bool process_exists(pid_t pid) {
  const char state = state_of(pid);
  if (state == '-' || state == 'X') return false;
  // Nobody can wait for it as long as it has other threads than the first.
  return state != 'Z' || count_threads(pid) > 1;
}

std::map<int, std::string> descriptors_of(pid_t pid) {
  std::map<int, std::string> all;
  DIR* const folder = ::opendir(("/proc/" + std::to_string(pid) + "/fd").c_str());
  if (folder == nullptr) return all;
  const int looking = pid == ::getpid() ? ::dirfd(folder) : -1;
  while (const dirent* entry = ::readdir(folder)) {
    char target[256] = {};
    const int number = std::atoi(entry->d_name);
    if (entry->d_name[0] == '.' || number == looking) continue;
    if (::readlinkat(::dirfd(folder), entry->d_name, target, sizeof target - 1) > 0)
      all[number] = target;
  }
  ::closedir(folder);
  return all;
}

int send_along(int socket, const std::vector<int>& descriptors, const ucred* sender) {
  const std::size_t size = descriptors.size() * sizeof(int);
  std::vector<char> control(CMSG_SPACE(size) + (sender ? CMSG_SPACE(sizeof *sender) : 0), '\0');
  char byte = 'm';
  iovec vector{&byte, 1};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* item = CMSG_FIRSTHDR(&message);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = SCM_RIGHTS;
  item->cmsg_len = CMSG_LEN(size);
  std::memcpy(CMSG_DATA(item), descriptors.data(), size);
  if (sender) {
    item = CMSG_NXTHDR(&message, item);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_CREDENTIALS;
    item->cmsg_len = CMSG_LEN(sizeof *sender);
    std::memcpy(CMSG_DATA(item), sender, sizeof *sender);
  }
  return ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 ? 0 : errno;
}

Folder::Folder() {
  char path[] = "/tmp/evparallel-test-XXXXXX";
  if (!::mkdtemp(path)) throw std::runtime_error("no folder can be made in /tmp");
  path_ = path;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

bool skipped_without_cores() {
  // The kernel decides where cores are written; only a plain file in a folder of the test can be removed again.
  std::string pattern;
  std::ifstream file("/proc/sys/kernel/core_pattern");
  std::getline(file, pattern);
  rlimit limit{};
  ::getrlimit(RLIMIT_CORE, &limit);
  const bool plain = !pattern.empty() && pattern.find_first_of("|/%") == std::string::npos;
  if (!plain) skip("core_pattern is " + pattern);
  if (plain && limit.rlim_max == 0) skip("no cores may be written");
  return !plain || limit.rlim_max == 0;
}

void write_cores() {
  rlimit limit{};
  ::getrlimit(RLIMIT_CORE, &limit);
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_CORE, &limit) != 0) throw std::runtime_error("no cores may be written");
}

void burn(std::chrono::milliseconds time) {
  const auto used = [] {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  };
  const auto end = used() + time;
  while (used() < end) {}
}

}  // namespace testing
