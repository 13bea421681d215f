// orphans.cpp - scans for the processes that children leave behind.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/orphans.hpp"

#include "base/retry_eintr.hpp"
#include "system/fork.hpp"
#include "system/new_descriptor.hpp"
#include "shared/cancel_table.hpp"
#include "snapshot/termination.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace evparallel::detail {

namespace {

constexpr std::int64_t period_ms = 200;

ssize_t read_some(int fd, char* to, std::size_t size) noexcept {
  return retry_on_eintr([&] { return ::read(fd, to, size); });
}

// The parent in /proc/PID/stat; 0: there is no such process.  The name of the program stands before
// it in brackets, and may contain brackets itself.
pid_t parent_of(int proc, const char* pid) noexcept {
  char path[32];
  std::snprintf(path, sizeof path, "%.20s/stat", pid);
  const int fd = open_file_at(proc, path, O_RDONLY);
  if (fd < 0) return 0;
  char text[512];
  const ssize_t size = read_some(fd, text, sizeof text - 1);
  ::close(fd);
  text[std::max<ssize_t>(size, 0)] = 0;
  const char* name_end = std::strrchr(text, ')');
  return name_end && std::strlen(name_end) > 4 ? std::atoi(name_end + 4) : 0;
}

}  // namespace

// ---- the children of this process ----

// Only this process waits for its children, so none leaves the list while it is read.
bool each_child_by_list(EachChild each, void* argument) noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/children", static_cast<int>(::getpid()));
  const int fd = open_file(path, O_RDONLY);
  if (fd < 0) return false;
  char text[1024];
  pid_t pid = 0;
  for (ssize_t size; (size = read_some(fd, text, sizeof text)) > 0;)
    for (ssize_t i = 0; i < size; ++i) {
      if (text[i] >= '0' && text[i] <= '9') {
        pid = pid * 10 + (text[i] - '0');
        continue;
      }
      if (pid > 0) each(argument, pid);
      pid = 0;
    }
  ::close(fd);
  return true;
}

bool each_child_by_parent(EachChild each, void* argument) noexcept {
  const int proc = open_file("/proc", O_RDONLY | O_DIRECTORY);
  if (proc < 0) return false;
  const pid_t self = ::getpid();
  alignas(dirent64) char entries[4096];
  for (ssize_t size; (size = ::getdents64(proc, entries, sizeof entries)) > 0;)
    for (ssize_t at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const dirent64*>(entries + at);
      at += entry->d_reclen;
      if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
          parent_of(proc, entry->d_name) == self)
        each(argument, std::atoi(entry->d_name));
    }
  ::close(proc);
  return true;
}

// ---- scans ----

void Orphans::set_up(ChildTable& children) noexcept {
  children_ = &children;
  due_ = never;
}

void Orphans::scan_soon() noexcept {
  if (due_ == never) due_ = later(now_ns(), period_ms);
}

void Orphans::mark_ended(pid_t pid) noexcept {
  pid_t* const end = dying_ + dying_count_;
  pid_t* const found = std::find(dying_, end, pid);
  if (found != end) *found = dying_[--dying_count_];
}

// Without /proc, or with the /proc of another namespace, a number may belong to any process.  So a
// process that cannot be waited for is left alone.
void Orphans::meet(void* self, pid_t pid) noexcept {
  Orphans& orphans = *static_cast<Orphans*>(self);
  if (orphans.children_->find_pid(pid) != no_child || !is_child_of_this_process(pid)) return;
  if (!kill_process(pid, SIGKILL)) return;  // it has changed its ids and cannot be killed
  orphans.met_ = true;
  pid_t* const end = orphans.dying_ + orphans.dying_count_;
  if (std::find(orphans.dying_, end, pid) != end) return;
  if (orphans.dying_count_ < dying_most) orphans.dying_[orphans.dying_count_++] = pid;
  ++orphans.killed_;
}

bool Orphans::look() noexcept {
  due_ = never;
  met_ = false;
  if (!each_child_by_list(meet, this)) each_child_by_parent(meet, this);
  return met_;
}

void Orphans::scan_if_due(std::int64_t now) noexcept {
  if (due_ != never && now >= due_) look();
}

int Orphans::wait_time(std::int64_t now) const noexcept {
  return due_ == never ? -1 : wait_until(due_, now);
}

}  // namespace evparallel::detail
