// orphan_group.cpp - the files of a control group.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/orphan_group.hpp"

#include "base/retry_eintr.hpp"
#include "system/descriptor.hpp"
#include "system/new_descriptor.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace evparallel::detail {

namespace {

// Where version 2 is mounted: alone, or beside version 1.
constexpr const char* mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

// The group of this process, as the line "0::/group" of /proc/self/cgroup says.  "": it has none.
void read_own_group(char (&group)[256]) noexcept {
  group[0] = 0;
  const DupFd file(open_file("/proc/self/cgroup", O_RDONLY));
  if (!file) return;
  char text[4096];
  const ssize_t size = retry_on_eintr([&] { return ::read(file.get(), text, sizeof text - 1); });
  text[std::max<ssize_t>(size, 0)] = 0;
  const char* line = std::strncmp(text, "0::", 3) == 0 ? text : std::strstr(text, "\n0::");
  if (!line) return;
  const char* const begin = std::strchr(line, '/');
  if (!begin) return;
  const std::size_t length = std::strcspn(begin, "\n");
  if (length < sizeof group) *std::copy_n(begin, length, group) = 0;
}

bool put(const char* folder, const char* file, const char* text) noexcept {
  char path[500];
  std::snprintf(path, sizeof path, "%s/%s", folder, file);
  const DupFd to(open_file(path, O_WRONLY));
  const std::size_t size = std::strlen(text);
  return to && retry_on_eintr([&] { return ::write(to.get(), text, size); }) ==
                   static_cast<ssize_t>(size);
}

}  // namespace

bool OrphanGroup::make_at(const char* folder) noexcept {
  std::snprintf(above_, sizeof above_, "%s", folder);
  std::snprintf(path_, sizeof path_, "%s/evparallel-orphans-%d", above_,
                static_cast<int>(::getpid()));
  ::rmdir(path_);  // of a process that had the same number and was killed
  if (::mkdir(path_, 0700) == 0) {
    // A folder of another file system than that of version 2 has no such files.
    if (put(path_, "cgroup.freeze", "1") && put(path_, "cgroup.kill", "1")) return true;
    ::rmdir(path_);
  }
  path_[0] = 0;
  return false;
}

// In a container the group may be named as on the host, and be the root of the mount.
bool OrphanGroup::make() noexcept {
  if (exists() || refused_) return exists();
  char group[256];
  read_own_group(group);
  for (const char* mount : mounts) {
    char folder[sizeof group + 64];
    std::snprintf(folder, sizeof folder, "%s%s", mount, group);
    if (make_at(folder) || make_at(mount)) return true;
  }
  refused_ = true;
  return false;
}

bool OrphanGroup::add_to(const char* folder, pid_t pid) noexcept {
  char text[16];
  std::snprintf(text, sizeof text, "%d", static_cast<int>(pid));
  return put(folder, "cgroup.procs", text);
}

bool OrphanGroup::add(pid_t pid) noexcept {
  return add_to(path_, pid);
}

void OrphanGroup::release(pid_t pid) noexcept {
  add_to(above_, pid);
}

void OrphanGroup::kill() noexcept {
  put(path_, "cgroup.kill", "1");
}

bool OrphanGroup::remove() noexcept {
  if (::rmdir(path_) != 0) return false;
  path_[0] = 0;
  return true;
}

}  // namespace evparallel::detail
