// program.hpp - the program that a snapshot belongs to, as the snapshot sees it.
// Runs in: snapshot.  Licence: see COPYING.
#pragma once

#include "system/descriptor.hpp"

#include <sys/types.h>

namespace evparallel {

// Made in the program and taken along by the fork.  A program that has called unshare(2) with
// CLONE_NEWPID forks into a pid namespace that cannot see it: it has no number there, and getppid(2)
// says 0 for as long as the snapshot lives.
class Program {
public:
  Program() noexcept = default;
  // This process.  Holds a descriptor of it where the kernel has such.
  static Program here() noexcept;

  int descriptor() const noexcept { return process_.get(); }
  // In the snapshot, once, before anything else is asked.
  void look_from_snapshot() noexcept;
  // 0: it is in another pid namespace.
  pid_t pid() const noexcept { return pid_; }
  // Where neither its number nor its descriptor is known, the end of its control socket tells alone,
  // and this is true.
  bool lives() const noexcept;

private:
  pid_t pid_ = 0;
  OwnedFd process_;
};

}  // namespace evparallel
