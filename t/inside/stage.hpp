// stage.hpp - shared state of the processes of a cell and the test program: a page, and a pipe for reports.
#pragma once

#include "cell.hpp"

#include <atomic>
#include <cstdint>

namespace cell {

struct Page {
  failpoints::Trigger trigger;
  std::atomic<int> begun{0};    // held calls that a child has begun
  std::atomic<bool> go{false};  // held calls may continue
  std::atomic<int> encoded{0};  // values that a child has encoded
  // The number of executions of each call, by the process that made it.
  std::atomic<unsigned char> worked[2][call_count]{};
};

enum class Said : std::int32_t {
  accepted,     // call `index` was made, or message `index` was sent
  answer,       // result: a: 0, or the code of the error; b: delivery; wrong: a wrong value
  message,      // message `index` was received
  error,        // on_error: a: code
  end,          // on_end
  exit,         // on_exit: a: Cause, b: wait status
  descriptors,  // of the program: a: before, b: after
  snapshot_descriptors,  // of the snapshot
  waited_in_vain,        // a wait timed out; `index`: line of the script
  thrown,                // the script threw an exception
  finished,              // the script has ended, and all its handles are destroyed
  losses,                // lost replicas, counted by on_lost: a
};

// One write for each record, so that records of several processes do not mix.
struct Record {
  Said what;
  Who who;
  std::int32_t index;
  std::int32_t a;
  std::int32_t b;
  std::int32_t wrong;
};

// Runs the program of the cell, in a fork of the test program.  It keeps `said` open, and so do its processes.
[[noreturn]] void perform(const Cell&, Page&, int said);

// The process that asks for a child, and that child.
constexpr Target caller_of(Use use) {
  return use == Use::nested ? Target::child : Target::parent;
}
constexpr Target worker_of(Use use) {
  return use == Use::nested ? Target::grandchild : Target::child;
}

// Whether the fault has had its effect: the process has stopped or ended, or its socket is closed.
bool has_happened(const Cell&, const Page&);

}  // namespace cell
