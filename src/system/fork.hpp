// fork.hpp - the only fork and the only wait.  Hygiene before and after a fork lives here.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <evparallel/error.hpp>

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace evparallel {

// What this process is to the library.
enum class Role { parent, snapshot, child };
Role role() noexcept;
void set_role(Role) noexcept;

// Tells whether a handle is at home.  In another pid namespace a child may have the number that the
// program has in its own.
struct OwnerProcess {
  pid_t pid;
  Role role;
  static OwnerProcess here() noexcept;
  bool is_here() const noexcept;
};

struct Forked {
  pid_t pid;  // -1: failed
  int error;
};
// Flushes, forks, and calls `far` in the copy, with all signals blocked.  `far` never returns.
Forked fork_clean(void (*far)(void*), void* argument) noexcept;
// The same for a snapshot, whose signals are in order already: its mask is the copy's too.
Forked fork_child(void (*far)(void*), void* argument) noexcept;

// Forks a process that is no child of this one, but one more of this one's own parent.  Returns its
// pid here and 0 there.  It begins as it is: handlers of pthread_atfork(3) are left for its own
// forks.  Requires: one thread.
Forked fork_sibling() noexcept;

// `call` is called in every copy of this process, also in one that the program forks by itself,
// before anything else runs there.
void on_fork_in_child(void (*call)()) noexcept;

// ---- in a fresh snapshot ----

// All dispositions to default, but of SIGTERM, which is as its children are to have it.  Leaves the
// parent's process group.  What its children leave behind comes to it.  The death of `parent` raises SIGCONT, which
// wakes even a stopped process.  0: it is in another pid namespace.  Returns false if it is dead already.
bool become_snapshot(pid_t parent) noexcept;
// A descriptor that reads SIGCHLD and SIGCONT; both stay blocked, and so do the signals by which a
// terminal or an init system ends programs: a snapshot ends when its parent does, which drains first.
// -1: errno.
int open_signal_descriptor() noexcept;
void drain_signal_descriptor(int fd) noexcept;
bool parent_is(pid_t) noexcept;
// Makes the kernel's killer prefer this process and its children, where that can be asked for.
void add_to_oom_score(int) noexcept;

// ---- in a fresh child ----

// Empty mask, death with the snapshot; a process group of its own, or `group` where that is not 0
// and can be joined.  Dispositions are those that become_snapshot() has set.  SIGTERM ends it if the snapshot, the program, its own
// parent or it itself has sent it: who else does means the program, which drains first, and whoever is
// in another pid namespace counts as somebody else.  What the
// programs that it starts leave behind comes to it.  Returns false if the snapshot is dead already.
bool become_child(pid_t snapshot, pid_t group = 0) noexcept;
// The kernel forgets that a process is to die with its parent when the ids of the process change: a
// task that gives up its rights would outlive its snapshot.  So this is called before each call but
// the first, and in each turn of a loop; `steps` weighs how much may have happened since the last
// time.  It looks now and then at first and then less often, for it asks the kernel, and from the
// first change on each time: the death signal is set anew, and who has no snapshot any more dies.
void check_death_signal(unsigned steps) noexcept;
constexpr unsigned steps_of_turn = 1;
constexpr unsigned steps_of_call = 4;
// In a copy that the task has forked by itself: it is no child, and its parent is not the snapshot.
void leave_death_signal() noexcept;
// Standard input on /dev/null, for reading and writing; where there is none, on what reads as an end
// of file.
void detach_stdin() noexcept;
// 0, or the errno for which standard input, after that, is not /dev/null.
int stdin_is_no_null_device() noexcept;
// Closed standard descriptors are opened on /dev/null, so that no file of the program takes their
// place; where there is none, they fail as before.
void open_missing_standard_descriptors() noexcept;
// The end of a child, without the exit handlers that it has inherited.  Where LeakSanitizer is in
// the program it looks for leaks first, as at any program's end, and gives its own status to who
// has some.
[[noreturn]] void end_child(int status) noexcept;

// ---- ends of children ----

// Both sides of a fork set the group, so that killing the group never races.
void make_group(pid_t) noexcept;
pid_t group_of(pid_t) noexcept;  // 0: there is no such process, or it is 0
// Whether it can be waited for here, and so has its number still.
bool is_child_of_this_process(pid_t) noexcept;
// False: it is not there, or the kernel does not let us.
bool kill_process(pid_t, int signum) noexcept;
// Kills a process that is no child of this one, whose number may be another's by now: only one that was born
// up to then, by boottime_ns().
void kill_born_by(pid_t, std::int64_t boottime) noexcept;
void kill_group(pid_t, int signum) noexcept;

struct Reaped {
  pid_t pid = 0;
  int wait_status = 0;
  ResourceUsage usage{};
};
// The next child that has ended, any of them; what is left of its group is killed before it is
// reaped, while the number cannot be another's, if it is one that `has_group`.  Only for the
// snapshot, whose children are the library's, and what they leave behind.
bool reap_next(Reaped&, bool (*has_group)(pid_t)) noexcept;

// One certain child: a snapshot.  Returns false as long as it runs.  Where its status was lost (the
// program ignores SIGCHLD, or waits for everything itself), wait_status is 0.
bool ended(pid_t, Reaped&) noexcept;

}  // namespace evparallel
