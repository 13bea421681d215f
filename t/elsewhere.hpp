// elsewhere.hpp - a piece of a test in a process of its own.
#pragma once

#include "testing.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <optional>
#include <utility>

namespace testing {

// Runs `f` in a forked copy of the test program, because it takes a default snapshot, changes
// limits, or is to be killed.  Returns what it returned, or 100 + the signal that ended it.
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

}  // namespace testing
