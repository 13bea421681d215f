// program.hpp - the program that a snapshot belongs to, as the snapshot sees it.
// Runs in: snapshot.  Licence: see COPYING.
#pragma once

#include "system/descriptor.hpp"

#include <sys/types.h>

namespace evparallel::detail {

// Made in the program and inherited through the fork.  A program that has called unshare(2) with
// CLONE_NEWPID forks into a pid namespace that cannot see it: it has no number there, and
// getppid(2) returns 0 while the snapshot lives.
class Program {
public:
  Program() noexcept = default;
  // Describes this process.  Holds a descriptor of it if the kernel has such descriptors.
  static Program here() noexcept;

  int descriptor() const noexcept { return process_.get(); }
  // Call this once in the snapshot, before pid() and lives().
  void look_from_snapshot() noexcept;
  // 0: the program is in another pid namespace.
  pid_t pid() const noexcept { return pid_; }
  // Returns true if neither the number nor the descriptor of the program is known: then only the
  // end of its control socket reports its end.
  bool lives() const noexcept;

private:
  pid_t pid_ = 0;
  OwnedFd process_;
};

}  // namespace evparallel::detail
