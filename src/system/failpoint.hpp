// failpoint.hpp - where the library looks whether a fault is due: a plan of the program's, or, for the
// library's own tests, an end of any kind at any hop.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// One structure in plain memory: what the program sets before a snapshot is inherited by it and by
// its children, and a task may set what is to happen to its own process.  Inert until `armed`.
#pragma once

#include "system/fork.hpp"

#include <evparallel/fault.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace evparallel {

// The places that a call passes on its way out and back, and an end on its way to whoever waits for
// it; in their order.  The library passes all but those marked *, which stand in the program's own
// code: there a codec, a task or a callback of a test passes them.
enum class Hop : std::uint8_t {
  run,                  // parent: run() or process() begins
  spawn,                // parent: a child is to be asked for
  connect_to_snapshot,  // child: it asks for the first time, and goes to the door
  ask,                  // parent: the request is made
  send,                 // parent: it goes to the control socket
  sent,                 // parent: it has gone
  encode,               // *both: a value is written
  put,                  // both: a frame is to be queued
  write,                // both: what is queued goes to the data socket, or the next piece of it
  written,              // both: nothing is queued any more
  turn,                 // snapshot: it looks for work
  rendezvous,           // snapshot: a child has knocked
  serve,                // snapshot: it has read a request
  fork,                 // whoever forks: just before, with all signals blocked
  forked,               // whoever forks: just after
  child_main,           // child: its first step of its own
  read,                 // both: bytes came in
  task,                 // child: it knows its task and is to enter it
  decode,               // *both: a value is read
  call,                 // *child: the task is called
  finish,               // parent: an answer is matched to its call
  callback,             // *parent: the caller hears
  drain,                // child: its task is over, what it has written may not be
  leave,                // child: all is written
  reap,                 // snapshot: a child has been waited for
  report,               // snapshot: a report goes to a control socket
  take,                 // parent: a report was read
  exit_report,          // parent: how a child ended is known
  ended,                // parent: and all that it sent was delivered
};
constexpr std::size_t hop_count = static_cast<std::size_t>(Hop::ended) + 1;

enum class Deed : std::uint8_t {
  none,
  kill,  // SIGKILL
  stop,  // SIGSTOP
  exit_0,
  exit_3,
  crash,          // a real SIGSEGV
  close_control,  // parent, snapshot: its end of the control socket
  close_data,     // child: its end of the data socket
};

// Shared memory between a test and the processes that it watches.
struct FaultGate {
  std::atomic<bool> open{false};   // passages count from here on
  std::atomic<pid_t> taken_by{0};  // who is to do the deed, where one is; 0: who comes first
  // Who did the deed: told before the deed, or, where a socket is closed, after it.
  std::atomic<pid_t> done_by{0};
};

// What is to happen to one process at one hop.
struct HopFault {
  Deed deed = Deed::none;
  Hop hop = Hop::run;
  Role role = Role::parent;   // of the process
  unsigned child = 0;         // for Role::child: the k-th that its snapshot forks; 0: each of them
  std::uint64_t passage = 1;  // the k-th in that process; 1 is the first
  FaultGate* gate = nullptr;  // none: all passages count
};

// What is to happen to whoever freezes its memory.
struct FreezeFault {
  std::uint64_t piece = 0;  // the k-th piece that is copied, of all regions; 0: none
  // With which it fails; -1: the process is killed; -2: its parent is, just before.
  int error = 0;
  bool mapped = false;  // it is copied, and fails to be mapped; what was there is lost to it
};

struct Faults {
  bool armed = false;
  fault::Plan plan{};
  HopFault at_hop{};
  FreezeFault at_freeze{};

  // What was counted, by the process `of`.  Another one has inherited it, and begins anew.
  struct Counts {
    pid_t of = 0;
    std::uint64_t messages = 0;
    std::uint64_t forks = 0;
    std::uint64_t passed = 0;  // passages of `at_hop` that counted
  };
  Counts counts{};
  unsigned children = 0;  // forked by the snapshot so far; in a child: which one it is
  int control = -1;       // this process's end of its control socket; -1: none
  int data = -1;          // a child's end of its data socket
};

extern Faults faults;

// Inline where nothing is armed: what a child passes is not to touch a page for it.

// The errno that this fork is to fail with, or 0.
int count_fork() noexcept;
inline int fault_at_fork() noexcept {
  return __builtin_expect(faults.armed, false) ? count_fork() : 0;
}

enum class FrameFault { none, cut };
// Called for each message before it is queued.
FrameFault count_message() noexcept;
inline FrameFault fault_at_message() noexcept {
  return __builtin_expect(faults.armed, false) ? count_message() : FrameFault::none;
}

// Called at each hop.
void pass_hop(Hop) noexcept;
inline void fault_at(Hop hop) noexcept {
  if (__builtin_expect(faults.armed, false)) pass_hop(hop);
}

[[noreturn]] void die_of_fault() noexcept;

}  // namespace evparallel
