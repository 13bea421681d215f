// elsewhere.hpp - runs a piece of a test in a process of its own.
#pragma once

#include "testing.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <optional>
#include <utility>

namespace testing {

// Runs `f` in a forked copy of the test program, because it takes a default snapshot, changes limits, or is to be
// killed.  Returns the result of `f`, or 100 + the signal that ended the copy.
template <class F>
int elsewhere(F f) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    int status = 99;
    try {
      status = f();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "# elsewhere: %s\n", error.what());
    }
    look_for_leaks();
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

// The same without /proc.  Empty: it cannot be hidden here.
template <class F>
std::optional<int> elsewhere_without_proc(F f) {
  constexpr int cannot_be_hidden = 98;
  const int status = elsewhere([&] {
    const int flags = ::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
    if (::unshare(flags) != 0 || ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("", "/proc", "tmpfs", 0, nullptr) != 0 || ::access("/proc/self", F_OK) == 0)
      return cannot_be_hidden;
    return f();
  });
  if (status == cannot_be_hidden) return std::nullopt;
  return status;
}

// The same on a system that allows no programs in memory; this can be a setting of a pid namespace.  Empty: it cannot
// be set here.
template <class F>
std::optional<int> elsewhere_without_programs_in_memory(F f) {
  constexpr int cannot_be_had = 98;
  const int status = elsewhere([&] {
    if (::unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) return cannot_be_had;
    return elsewhere([&] {
      if (::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return cannot_be_had;
      if (::mount("", "/proc", "proc", 0, nullptr) != 0) return cannot_be_had;
      const int setting = ::open("/proc/sys/vm/memfd_noexec", O_WRONLY | O_CLOEXEC);
      if (setting < 0 || ::write(setting, "2", 1) != 1) return cannot_be_had;
      ::close(setting);
      return f();
    });
  });
  if (status == cannot_be_had) return std::nullopt;
  return status;
}

}  // namespace testing
