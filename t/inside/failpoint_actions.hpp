// failpoint_actions.hpp - the actions of the library's own tests in one process at a failpoint.
#pragma once

#include "private_names.hpp"

#include "system/failpoint.hpp"

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace failpoints {

using evparallel::Failpoint;
using evparallel::fault::Victim;

// The failpoints of a call and of an end.
constexpr std::size_t count = static_cast<std::size_t>(Failpoint::ended) + 1;

enum class Action : std::uint8_t {
  none,
  kill,         // SIGKILL
  kill_parent,  // SIGKILL, for the parent of the process
  stop,         // SIGSTOP
  exit_0,
  exit_3,
  crash,          // a real SIGSEGV
  close_control,  // parent, snapshot: its end of the control socket
  close_data,     // child: its end of the data socket
  fail,           // fails the operation at the failpoint, if it can fail
};

// Memory shared by a test and the processes that it observes.
struct Trigger {
  std::atomic<bool> active{false};  // hits are counted while this is true
  std::atomic<pid_t> taken_by{0};   // the process that acts, or 0: the first one that gets there
  // The process that has acted.  Set before the action, or after it if the action closes a socket.
  std::atomic<pid_t> done_by{0};
};

// The action of one process at one failpoint.
struct Fault {
  Action action = Action::none;
  Failpoint failpoint = Failpoint::run;
  Victim victim = Victim::parent;
  unsigned child = 0;  // for Victim::child: the k-th child that its snapshot forks; 0: each child
  std::uint64_t hit = 1;       // the k-th hit in that process; 1 is the first
  Trigger* trigger = nullptr;  // none: all hits count
  int error = 0;               // of Action::fail
};

// Installs a hook with this fault; hits are counted from the beginning.  A plan of the program that was armed before
// remains armed.  fault::disarm() removes both.
void load(const Fault&) noexcept;

}  // namespace failpoints
