// program.cpp - whether the program lives, by its pid or by a descriptor of it.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/program.hpp"

#include "system/fork.hpp"
#include "system/new_descriptor.hpp"
#include "system/polling.hpp"

#include <unistd.h>

namespace evparallel::detail {

Program Program::here() noexcept {
  Program program;
  program.pid_ = ::getpid();
  program.process_ = OwnedFd(open_process(program.pid_));
  return program;
}

void Program::look_from_snapshot() noexcept {
  if (parent_is(0))
    pid_ = 0;
  else
    process_.close();
}

bool Program::lives() const noexcept {
  if (!process_) return parent_is(pid_);
  pollfd process{process_.get(), POLLIN, 0};
  return wait_for(&process, 1, 0) == 0;
}

}  // namespace evparallel::detail
