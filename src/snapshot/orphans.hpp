// orphans.hpp - what children leave behind: the programs that they have started and that have left
// their process group.
// Runs in: snapshot.  Licence: see COPYING.
//
// Snapshot and children are subreapers (prctl(2)): what a child has started is below it as long as
// it lives, and becomes a child of the snapshot with its end.  No event tells of that, and to look
// costs about a microsecond for each child that lives.  So there is one look for all ends of a
// while, and none where nobody has ended.
//
// Lives in the snapshot alone.
#pragma once

#include "snapshot/child_table.hpp"

namespace evparallel {

class Orphans {
public:
  // Requires: the object stands in zeroed memory.
  void set_up(ChildTable&) noexcept;

  // A child has ended, or somebody who was none has: what was below may be here by now.
  void scan_soon() noexcept;
  // It has been waited for, and is no child: its pid may be another's from now on.
  void mark_ended(pid_t) noexcept;

  // Where it is time to, kills whoever is here and no child.
  void scan_if_due(std::int64_t now) noexcept;
  // The same at once.  False: nobody is here.
  bool look() noexcept;
  // Milliseconds from `now` until the next look, as poll(2) wants them.
  int wait_time(std::int64_t now) const noexcept;

  std::uint64_t killed() const noexcept { return killed_; }

private:
  static void meet(void* self, pid_t) noexcept;

  static constexpr std::size_t dying_most = 1024;
  ChildTable* children_;
  std::int64_t due_;
  std::uint64_t killed_;
  bool met_;
  std::size_t dying_count_;
  pid_t dying_[dying_most];  // killed and not waited for: they count once
};

// Calls `each` with every child that this process has, those that have ended and were not waited for
// too.  By the list that the kernel keeps, where it does; else by the parent that each process on the
// machine names.  False: /proc does not say.
using EachChild = void (*)(void* argument, pid_t);
bool each_child_by_list(EachChild, void* argument) noexcept;
bool each_child_by_parent(EachChild, void* argument) noexcept;

}  // namespace evparallel
