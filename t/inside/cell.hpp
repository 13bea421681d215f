// cell.hpp - one small program in a process of its own, with a fault in one of its processes at a chosen place.
//
// Three parties take part.  The test program is the third process: it forks the program of the cell, reads the reports
// of its processes from one pipe, kills stopped processes, and checks the reports.  All processes of the cell hold the
// writing end of that pipe, so its end of file proves that none of them is left.
#pragma once

#include "failpoint_actions.hpp"

#include <evparallel/error.hpp>

#include <string>
#include <vector>

namespace cell {

namespace par = evparallel;
using failpoints::Failpoint;

enum class Use {
  run,      // the program calls a remote function
  process,  // the program exchanges messages with a process
  nested,   // the program calls a remote function that calls another one
};

// The process in which the fault happens.  In a nested use the child is the caller, and the grandchild is the callee.
enum class Target { parent, snapshot, child, grandchild };

enum class Action { kill, stop_then_kill, exit_0, exit_3, crash, close };

// The moment of the fault, seen from the caller (in a nested use: from the child).
enum class Moment {
  before_request,        // no child was requested yet
  after_request,         // the target has sent the request, read it, or started as the child
  before_first_message,  // the child runs, and was sent only its task
  mid_message,           // a message larger than a socket buffer is being sent
  between_messages,      // one call was answered
  one_pending,           // one call is being executed
  hundred_pending,       // one call is being executed, and 99 wait
  draining,              // the caller has closed, and the answers fill the socket
  at_failpoint,  // no moment, but the hit of `failpoint`; its script passes all of the above
};

struct Cell {
  Use use = Use::run;
  Target target = Target::child;
  Action action = Action::kill;
  Moment moment = Moment::at_failpoint;
  Failpoint failpoint = Failpoint::run;  // for Moment::at_failpoint
  std::uint64_t hit = 1;                 // of that failpoint
  unsigned replicas = 1;                 // of the snapshot; the fault happens in one of them
  unsigned spares = 0;                   // of the snapshot; all wait before the script begins
};

std::string name_of(const Cell&);
const char* name_of(Failpoint);

// Sets of outcomes, and of delivery states.
using Set = unsigned;
constexpr Set answered = 1;  // a value was received
constexpr Set set_of(par::Errc code) {
  return 1U << static_cast<unsigned>(code);
}
constexpr Set set_of(par::Delivery delivery) {
  return 1U << static_cast<unsigned>(delivery);
}
constexpr Set anything = ~0U;

struct Allowed {
  Set outcomes = anything;  // `answered`, or codes of errors
  Set deliveries = anything;
};

// The process that reports.
enum class Who { program, child };

// The calls of a script: the first one, those of its moment from 1 on, one after the moment, and, with replicas, one
// after the lost replica is known.
constexpr int first_call = 0;
constexpr int spare_call = 1998;
constexpr int last_call = 1999;
constexpr int call_count = 2000;

// The outcomes that are allowed for one call.  `index` is as above; the call that starts the script of a nested use is
// the program's first call.
using Judge = Allowed (*)(const Cell&, Who, int index);

// For a fault anywhere in the script: calls before it succeed, and calls after it may fail.
Allowed allowed_anywhere(const Cell&, Who, int index);

struct Verdict {
  std::vector<std::string> complaints;
  bool done = false;  // the fault has happened
  std::string text() const;
};

// Runs the cell and checks its reports against the judge and all invariants.
Verdict play(const Cell&, Judge);

// Writes a comment line into the log.
void remark(const std::string&);

}  // namespace cell
