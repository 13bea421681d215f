// orphans.hpp - kills orphans: programs that a child has started and that have left its group.
// Runs in: snapshot.  Licence: see COPYING.
//
// Snapshot and children are subreapers (prctl(2)): what a child has started stays below it while it
// lives, and becomes a child of the snapshot when it ends.  No event reports that, and a scan costs
// about a microsecond per living child.  So one scan serves all ends of a period, and there is no
// scan if no child has ended.  What an orphan has started is looked for as soon as that orphan has
// ended; if that goes on, a control group ends it.
//
// The object lives in the snapshot alone.
#pragma once

#include "snapshot/child_table.hpp"
#include "snapshot/orphan_group.hpp"

namespace evparallel::detail {

class Orphans {
public:
  // Requires: the object stands in zeroed memory.
  void set_up(ChildTable&) noexcept;

  // A child has ended: processes below it may be children of the snapshot by now.
  void scan_soon() noexcept;
  // An orphan has been waited for: its pid may be reused from now on.  The next scan is due.
  void mark_ended(pid_t) noexcept;

  // If a scan is due, kills every child of this process that is not in the table of children.
  void scan_if_due(std::int64_t now) noexcept;
  // The same at once.  Returns false if there is none, and no group of them.
  bool look() noexcept;
  // A group kills orphans that go on forking.
  bool has_group() const noexcept { return group_.exists(); }
  // Milliseconds from `now` until the next scan, in the form that poll(2) takes.
  int wait_time(std::int64_t now) const noexcept;

  std::uint64_t killed() const noexcept { return killed_; }

private:
  static void meet(void* self, pid_t) noexcept;
  void capture(pid_t, int levels) noexcept;

  static constexpr std::size_t dying_most = 1024;
  // This many scans in a row must find new orphans before the group is made.
  static constexpr unsigned scans_without_group = 4;
  ChildTable* children_;
  std::int64_t due_;
  std::uint64_t killed_;
  bool met_;
  bool met_new_;
  bool listed_;     // by the list of the kernel: /proc is that of the namespace of this process
  unsigned scans_;  // in a row
  OrphanGroup group_;
  std::size_t dying_count_;
  pid_t dying_[dying_most];  // killed and not waited for yet, so that each counts once
};

// Calls `each` with every child of this process, including those that have ended and were not
// waited for.  each_child_by_list() uses the list that the kernel keeps, where there is one;
// each_child_by_parent() uses the parent of each process on the machine.  Returns false if /proc
// does not say.
using EachChild = void (*)(void* argument, pid_t);
bool each_child_by_list(EachChild, void* argument) noexcept;
bool each_child_by_parent(EachChild, void* argument) noexcept;

}  // namespace evparallel::detail
