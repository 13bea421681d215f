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
// A scan captures the processes below an orphan down to this many levels.
constexpr int most_levels = 64;

ssize_t read_some(int fd, char* to, std::size_t size) noexcept {
  return retry_on_eintr([&] { return ::read(fd, to, size); });
}

// `task`: of a folder "PID/task/PID" in /proc.
bool each_child_in(const char* task, EachChild each, void* argument) noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "%s/children", task);
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
  char task[48];
  std::snprintf(task, sizeof task, "/proc/self/task/%d", static_cast<int>(::getpid()));
  return each_child_in(task, each, argument);
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

// What it has started is a child of this process by now.
void Orphans::mark_ended(pid_t pid) noexcept {
  pid_t* const end = dying_ + dying_count_;
  pid_t* const found = std::find(dying_, end, pid);
  if (found != end) *found = dying_[--dying_count_];
  due_ = 0;
}

// Makes a process and all that is below it members of the group: they do not run any more.  The
// parent of a process is a member before the process is, so that it waits for none of its children,
// and no number is reused: except that of a child for which nobody waits, which is why the parent is
// looked at again once the child is a member.
void Orphans::capture(pid_t pid, int levels) noexcept {
  struct Parent {
    Orphans* orphans;
    pid_t pid;
    int levels;
    bool has(pid_t child) const noexcept {
      char number[16];
      std::snprintf(number, sizeof number, "/proc/%d", static_cast<int>(child));
      return parent_of(AT_FDCWD, number) == pid;
    }
  } parent{this, pid, levels};
  if (!group_.add(pid) || !listed_ || levels == 0) return;
  char task[48];
  const int number = static_cast<int>(pid);
  std::snprintf(task, sizeof task, "/proc/%d/task/%d", number, number);
  each_child_in(
      task,
      [](void* argument, pid_t child) {
        const Parent& parent = *static_cast<Parent*>(argument);
        if (parent.has(child)) parent.orphans->capture(child, parent.levels - 1);
        if (!parent.has(child)) parent.orphans->group_.release(child);
      },
      &parent);
}

// Without /proc, or with the /proc of another namespace, a number may belong to any process.  So a
// process that cannot be waited for is left alone.
void Orphans::meet(void* self, pid_t pid) noexcept {
  Orphans& orphans = *static_cast<Orphans*>(self);
  if (orphans.children_->find_pid(pid) != no_child || !is_child_of_this_process(pid)) return;
  if (orphans.group_.exists()) orphans.capture(pid, most_levels);
  if (!kill_process(pid, SIGKILL)) return;  // it has changed its ids and cannot be killed
  orphans.met_ = true;
  pid_t* const end = orphans.dying_ + orphans.dying_count_;
  if (std::find(orphans.dying_, end, pid) != end) return;
  if (orphans.dying_count_ < dying_most) orphans.dying_[orphans.dying_count_++] = pid;
  ++orphans.killed_;
  orphans.met_new_ = true;
}

bool Orphans::look() noexcept {
  due_ = never;
  met_ = met_new_ = false;
  listed_ = each_child_by_list(meet, this);
  if (!listed_) each_child_by_parent(meet, this);
  if (met_new_ && ++scans_ >= scans_without_group) group_.make();
  if (!met_) scans_ = 0;
  if (!group_.exists()) return met_;
  group_.kill();
  if (met_ || !group_.remove()) due_ = later(now_ns(), period_ms);
  return met_ || group_.exists();
}

void Orphans::scan_if_due(std::int64_t now) noexcept {
  if (due_ != never && now >= due_) look();
}

int Orphans::wait_time(std::int64_t now) const noexcept {
  return due_ == never ? -1 : wait_until(due_, now);
}

}  // namespace evparallel::detail
