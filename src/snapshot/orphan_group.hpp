// orphan_group.hpp - a control group for orphans that fork faster than they are found.
// Runs in: snapshot.  Licence: see COPYING.
//
// What a member forks is a member, members do not run, and the kernel kills all of them at once:
// cgroups(7), version 2, with cgroup.kill, which Linux has since 5.14.  The group is made when it is
// needed: not every process may make one, and most children leave no such orphans.
#pragma once

#include <sys/types.h>

namespace evparallel::detail {

// Requires: the object stands in zeroed memory.
class OrphanGroup {
public:
  // Makes the group, below that of this process.  Returns false if that is not possible; then it is
  // not tried again.
  bool make() noexcept;
  bool exists() const noexcept { return path_[0] != 0; }
  // Returns false if the process has ended or may not be moved.
  bool add(pid_t) noexcept;
  // Makes it a member of the group of this process again.
  void release(pid_t) noexcept;
  void kill() noexcept;
  // Returns false if there are members left.
  bool remove() noexcept;

private:
  bool make_at(const char* folder) noexcept;
  bool add_to(const char* folder, pid_t) noexcept;

  bool refused_;
  char above_[400];  // the folder of the group in which this one was made
  char path_[450];
};

}  // namespace evparallel::detail
