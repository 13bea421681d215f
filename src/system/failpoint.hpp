// failpoint.hpp - the places where the library can make a fault happen.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// A fault is a plan of the program or, for the library's own tests, an end of any kind at any hop.
// All of it is one structure in plain memory: the snapshot and its children inherit what the
// program sets before it takes the snapshot, and a task may set what happens to its own process.
// Nothing happens until `armed` is true.
#pragma once

#include "system/fork.hpp"

#include <evparallel/fault.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace evparallel {

// The hops: the places that a call passes on its way to the child and back, and that an end passes
// on its way to its observer, in this order.  The library passes all but those marked *, which are
// in the program's code: a codec, a task or a callback of a test passes them.
enum class Hop : std::uint8_t {
  run,                  // parent: run() or process() begins
  spawn,                // parent: it is about to ask for a child
  connect_to_snapshot,  // child: its first own request; it connects to the rendezvous socket
  ask,                  // parent: the request is made
  send,                 // parent: the request goes to the control socket
  sent,                 // parent: the request has gone
  encode,               // *both: a value is written
  put,                  // both: a frame is about to be queued
  write,                // both: queued bytes, or the next piece of them, go to the data socket
  written,              // both: nothing is queued any more
  turn,                 // snapshot: it begins an iteration of its loop
  rendezvous,           // snapshot: a child has connected
  serve,                // snapshot: it has read a request
  fork,                 // the process that forks: just before, with all signals blocked
  forked,               // the process that forks: just after
  child_main,           // child: its first step of its own
  read,                 // both: bytes have arrived
  task,                 // child: it knows its task and is about to enter it
  decode,               // *both: a value is read
  call,                 // *child: the task is called
  finish,               // parent: an answer is matched to its call
  callback,             // *parent: the callback of the caller runs
  drain,                // child: its task is over, its output may not be written yet
  leave,                // child: all is written
  reap,                 // snapshot: a child has been waited for
  report,               // snapshot: a report goes to a control socket
  take,                 // parent: a report has been read
  exit_report,          // parent: it is known how a child ended
  ended,                // parent: and all that the child sent has been delivered
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

// Memory shared by a test and the processes that it observes.
struct FaultGate {
  std::atomic<bool> open{false};   // passages count from here on
  std::atomic<pid_t> taken_by{0};  // the process that does the deed, or 0: the first that comes
  // The process that did the deed.  Set before the deed, or after it if the deed closes a socket.
  std::atomic<pid_t> done_by{0};
};

// The deed that one process does at one hop.
struct HopFault {
  Deed deed = Deed::none;
  Hop hop = Hop::run;
  Role role = Role::parent;   // of the process
  unsigned child = 0;         // for Role::child: the k-th that its snapshot forks; 0: each child
  std::uint64_t passage = 1;  // the k-th in that process; 1 is the first
  FaultGate* gate = nullptr;  // none: all passages count
};

// The fault in a process that freezes its memory.
struct FreezeFault {
  std::uint64_t piece = 0;  // the k-th piece that is copied, over all regions; 0: none
  // The errno of the failure; -1: the process is killed; -2: its parent is killed just before.
  int error = 0;
  bool mapped = false;  // the piece is copied, but cannot be mapped, and the old mapping is lost
};

struct Faults {
  bool armed = false;
  fault::Plan plan{};
  HopFault at_hop{};
  FreezeFault at_freeze{};

  // The counts of the process `of`.  A process that has inherited them begins anew.
  struct Counts {
    pid_t of = 0;
    std::uint64_t messages = 0;
    std::uint64_t forks = 0;
    std::uint64_t passed = 0;  // passages of `at_hop` that counted
  };
  Counts counts{};
  unsigned children = 0;  // forked by the snapshot so far; in a child: its own number
  int control = -1;       // this process's end of its control socket; -1: none
  int data = -1;          // a child's end of its data socket
};

extern Faults faults;

// Inline for the case that nothing is armed: a child must not touch another page for a hop.

// Returns the errno with which this fork has to fail, or 0.
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
