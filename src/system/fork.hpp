// fork.hpp - the only fork and the only wait, and what has to be done before and after a fork.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <evparallel/error.hpp>

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace evparallel::detail {

// The role of this process.
enum class Role { parent, snapshot, child };
Role role() noexcept;
void set_role(Role) noexcept;

// Says whether this process is the one that owns a handle.  The role is compared, too, because in
// another pid namespace a child may have the same number as the program has in its own.
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
// Flushes, forks, and calls `far` in the child, with all signals blocked.  `far` never returns.
Forked fork_clean(void (*far)(void*), void* argument) noexcept;
// The same for a snapshot, whose signals are set up already: the child inherits its mask.
Forked fork_child(void (*far)(void*), void* argument) noexcept;

// Flushes, and forks a process that is not a child of this process but a child of its parent.
// Returns its pid here and 0 there.  Runs no handlers of pthread_atfork(3); they are left for its own forks.
// Requires: one thread.
Forked fork_sibling() noexcept;

// `call` is called in every forked copy of this process, also in one that the program forks by
// itself, before anything else runs there.
void on_fork_in_child(void (*call)()) noexcept;

// ---- in a new snapshot ----

// Sets all dispositions to default, except that of SIGTERM, which is set to what its children need.
// Leaves the parent's process group.  Becomes the parent of what its children leave behind.  The
// death of `parent` raises SIGCONT, which wakes even a stopped process.  `parent` 0: it is in
// another pid namespace.  Returns false if the parent is dead already.
bool become_snapshot(pid_t parent) noexcept;
// A descriptor that reads SIGCHLD and SIGCONT; both stay blocked.  The signals by which a terminal
// or an init system ends programs are blocked as well: a snapshot ends when its parent does, and
// the parent drains first.  Returns -1 with errno on failure.
int open_signal_descriptor() noexcept;
void drain_signal_descriptor(int fd) noexcept;
bool parent_is(pid_t) noexcept;
// Makes the OOM killer of the kernel prefer this process and its children, where the kernel allows
// it.
void add_to_oom_score(int) noexcept;

// ---- in a new child ----

// Empties the signal mask, makes the child die with the snapshot, and gives it a process group of
// its own, or `group` if that is not 0 and can be joined.  The dispositions are those that
// become_snapshot() has set.  SIGTERM ends the child if the snapshot, the program, the child's own
// parent or the child itself has sent it.  Any other sender means the program, which drains first;
// a sender in another pid namespace counts as any other sender.  The child becomes the parent of
// what the programs that it starts leave behind.  Returns false if the snapshot is dead already.
bool become_child(pid_t snapshot, pid_t group = 0) noexcept;
// The kernel drops the death signal when the ids of a process change, so a task that gives up its
// rights would outlive its snapshot.  So this is called before each call but the first, and in each
// iteration of a loop.  `steps` is a weight: how much may have happened since the last time.  A
// check asks the kernel, so checks become rarer as steps add up.  After the first change of ids
// every call sets the death signal anew, and a child without a snapshot dies.
void check_death_signal(unsigned steps) noexcept;
constexpr unsigned steps_of_turn = 1;
constexpr unsigned steps_of_call = 4;
// For a process that the task has forked by itself: it is no child, and its parent is not the
// snapshot.
void leave_death_signal() noexcept;
// Puts standard input on /dev/null, open for reading and writing, or, if that cannot be opened, on
// a descriptor that reads as end of file.
void detach_stdin() noexcept;
// Returns 0, or the errno for which standard input is not /dev/null after detach_stdin().
int stdin_is_no_null_device() noexcept;
// Opens closed standard descriptors on /dev/null, so that no file of the program takes their
// numbers.  If /dev/null cannot be opened, they fail as before.
void open_missing_standard_descriptors() noexcept;
// Ends a child without the exit handlers that it has inherited.  If LeakSanitizer is in the program
// it looks for leaks first, as at any program's end, and gives its own exit status to a child that
// has leaks.
[[noreturn]] void end_child(int status) noexcept;

// ---- ends of children ----

// Both sides of a fork set the group, so that killing the group never races.
void make_group(pid_t) noexcept;
pid_t group_of(pid_t) noexcept;  // 0: no such process, or `pid` is 0
// True if it can be waited for here, and so still has its number.
bool is_child_of_this_process(pid_t) noexcept;
// False: there is no such process, or the kernel does not permit it.
bool kill_process(pid_t, int signum) noexcept;
// Kills a process that is no child of this one, whose number may be reused by now: only if it was
// started at `boottime` or before, in the time of boottime_ns().
void kill_born_by(pid_t, std::int64_t boottime) noexcept;
void kill_group(pid_t, int signum) noexcept;

struct Reaped {
  pid_t pid = 0;
  int wait_status = 0;
  ResourceUsage usage{};
};
// Waits for the next child that has ended, any of them.  If `has_group` is true for it, the rest of
// its process group is killed before the child is reaped, while its number cannot be reused.  Only
// for the snapshot, whose children are those of the library and what these leave behind.
bool reap_next(Reaped&, bool (*has_group)(pid_t)) noexcept;

// Waits for one particular child: a snapshot.  Returns false while it runs.  If its status was lost
// (the program ignores SIGCHLD, or waits for everything itself), wait_status is 0.
bool ended(pid_t, Reaped&) noexcept;

}  // namespace evparallel::detail
