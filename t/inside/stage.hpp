// stage.hpp - what the processes of a cell and the test program share: a page, and a pipe for what is said.
#pragma once

#include "cell.hpp"

#include <atomic>
#include <cstdint>

namespace cell {

struct Page {
  failpoints::Trigger trigger;
  std::atomic<int> begun{0};    // held calls that a child has begun
  std::atomic<bool> go{false};  // they may go on
  std::atomic<int> encoded{0};  // values that a child has encoded
  // How often the task of each call was entered, by who made it.
  std::atomic<unsigned char> worked[2][call_count]{};
};

enum class Said : std::int32_t {
  accepted,  // call `index` was made, or message `index` sent
  answer,    // it came: a: 0, or the code of the error; b: delivery; wrong: the value is another's
  message,   // message `index` came
  error,     // on_error: a: code
  end,       // on_end
  exit,      // on_exit: a: Cause, b: wait status
  descriptors,           // of the program: a before, b after
  snapshot_descriptors,  // of the snapshot
  waited_in_vain,        // `index`: line of the script
  thrown,                // an exception left the script
  finished,              // the script is over and all its handles are gone
  losses,                // of replicas, as on_lost has told them: a
};

// One write each, so that records of several processes do not mix.
struct Record {
  Said what;
  Who who;
  std::int32_t index;
  std::int32_t a;
  std::int32_t b;
  std::int32_t wrong;
};

// The program of the cell, in a fork of the test program.  It holds `said` open, and so do its processes.
[[noreturn]] void perform(const Cell&, Page&, int said);

// Who asks for a child, and who is it.
constexpr Target caller_of(Use use) {
  return use == Use::nested ? Target::child : Target::parent;
}
constexpr Target worker_of(Use use) {
  return use == Use::nested ? Target::grandchild : Target::child;
}

// Whether what was to happen has had its effect: the process has stopped or ended, or its socket is closed.
bool has_happened(const Cell&, const Page&);

}  // namespace cell
