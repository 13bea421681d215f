// cell.hpp - one small program in a process of its own, to one of whose processes something happens at a chosen place.
//
// Three parties.  The test program is the third process: it forks the program of the cell, hears what its
// processes say through one pipe, kills what was stopped, and judges.  All processes of the cell hold the
// writing end of that pipe, so its end of file is the proof that none of them is left.
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
  process,  // the program converses with a process
  nested,   // the program calls a remote function that calls one
};

// Whom it happens to.  The child of a nested use is the one that calls, the grandchild the one that is called.
enum class Target { parent, snapshot, child, grandchild };

enum class Action { kill, stop_then_kill, exit_0, exit_3, crash, close };

// When it happens, seen from whoever calls (in a nested use: from the child).
enum class Moment {
  before_request,  // nobody was asked for a child yet
  after_request,  // the request has left, the snapshot has read it, the child is born: whichever is the target's
  before_first_message,  // the child is there, and has been sent its task alone
  mid_message,           // a message that no socket buffer holds is under way
  between_messages,      // one was answered
  one_pending,           // one is being worked on
  hundred_pending,       // one is being worked on, and 99 wait
  draining,              // the caller has closed, and the answers fill the socket
  at_failpoint,  // not at a moment but at `failpoint`, somewhere in all of the above, one after the other
};

struct Cell {
  Use use = Use::run;
  Target target = Target::child;
  Action action = Action::kill;
  Moment moment = Moment::at_failpoint;
  Failpoint failpoint = Failpoint::run;  // for Moment::at_failpoint
  std::uint64_t hit = 1;                 // of that failpoint
  unsigned replicas = 1;                 // of the snapshot; it happens to one of them
  unsigned spares = 0;                   // of the snapshot; all wait before the script begins
};

std::string name_of(const Cell&);
const char* name_of(Failpoint);

// Outcomes and how far the calls got, as sets.
using Set = unsigned;
constexpr Set answered = 1;  // a value came
constexpr Set set_of(par::Errc code) {
  return 1U << static_cast<unsigned>(code);
}
constexpr Set set_of(par::Delivery delivery) {
  return 1U << static_cast<unsigned>(delivery);
}
constexpr Set anything = ~0U;

struct Allowed {
  Set outcomes = anything;  // `answered`, codes of errors
  Set deliveries = anything;
};

// Who says it.
enum class Who { program, child };

// The calls of a script: the first one, those of its moment from 1 on, one after all is over, and, where there are
// replicas, one after it is known which of them is lost.
constexpr int first_call = 0;
constexpr int spare_call = 1998;
constexpr int last_call = 1999;
constexpr int call_count = 2000;

// What one call may hear.  `index` as above; the call that starts the script of a nested use is the program's first.
using Judge = Allowed (*)(const Cell&, Who, int index);

// For an end anywhere in the script: what was before it goes well, what is after it may not.
Allowed allowed_anywhere(const Cell&, Who, int index);

struct Verdict {
  std::vector<std::string> complaints;
  bool done = false;  // what was to happen has happened
  std::string text() const;
};

// Plays the cell and holds the judge's view and all invariants against what was heard.
Verdict play(const Cell&, Judge);

// A line for the reader of the log.
void remark(const std::string&);

}  // namespace cell
