// server.hpp - the snapshot itself: it waits to be asked, forks, reaps, reports.
// Runs in: snapshot.  Licence: see COPYING.
//
// No libevent, no threads, and it never blocks in a write.  It calls up through one pointer only:
// the life of a child. Its state is one fixed mapping; serving allocates nothing.
#pragma once

#include "system/descriptor.hpp"
#include "system/stdio_plan.hpp"
#include "backtrace/loaded_modules.hpp"
#include "shared/cancel_table.hpp"
#include "shared/child_slots.hpp"
#include "snapshot/program.hpp"

#include <sys/types.h>

#include <cstdint>
#include <memory>

namespace evparallel {

// What a child is born with.
struct ChildArgs {
  std::uint64_t id = 0;
  OwnedFd socket;          // its end of the data socket
  StdioPlan streams;       // its standard streams, until they are in place
  int no_null_device = 0;  // an errno: one was to be the null device, and there is none
  OwnedFd rendezvous;      // to ask the snapshot for children of its own
  Slot* slot = nullptr;    // shared with the one who asked for it
  Slot* slots = nullptr;   // the arena
  CancelTable* notes = nullptr;
  // What was loaded when the snapshot was taken; the snapshot's own, which to share is to write.
  const std::shared_ptr<const Modules>* modules = nullptr;
  pid_t snapshot = 0;
  pid_t group = 0;  // the process group to join; 0: one of its own
};

struct ServerStart {
  OwnedFd control;  // the snapshot's end of the first client's control socket
  Slot* slots = nullptr;
  CancelTable* notes = nullptr;
  std::shared_ptr<const Modules> modules;
  Program program;
  bool freeze = false;
  unsigned siblings = 0;  // that are to be forked from it when it is frozen
  int unprepared = 0;     // an errno: what its children would need could not be made
  void (*child_main)(ChildArgs&&) = nullptr;  // the life of a child; does not return
};

// What is given stays where it is: children read it.  The parent hears whether it serves, once,
// before anything else.
[[noreturn]] void serve(ServerStart&&);

}  // namespace evparallel
