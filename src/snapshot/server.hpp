// server.hpp - the snapshot itself: it waits for requests, forks, reaps, and reports.
// Runs in: snapshot.  Licence: see COPYING.
//
// It uses no libevent and no threads, and it never blocks in a write.  It calls up through one
// pointer only: the main function of a child.  Its state is one fixed mapping; serving allocates
// nothing.
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

namespace evparallel::detail {

// What a child receives from the snapshot.
struct ChildArgs {
  std::uint64_t id = 0;
  OwnedFd socket;          // its end of the data socket
  StdioPlan streams;       // its standard streams, until they are at 0, 1 and 2
  int no_null_device = 0;  // an errno: a stream needs the null device, and there is none
  OwnedFd rendezvous;      // the rendezvous socket, to ask for children of its own
  Slot* slot = nullptr;    // shared with the client that asked for the child
  Slot* slots = nullptr;   // all slots of the arena
  CancelTable* cancel_table = nullptr;
  // The modules that were loaded when the snapshot was taken.  This points to the snapshot's own
  // object, because sharing it would write to its reference count.
  const std::shared_ptr<const Modules>* modules = nullptr;
  pid_t snapshot = 0;
  pid_t group = 0;  // the process group to join; 0: one of its own
};

// Makes the two ends of a rendezvous socket; `sender` is the end that is written to.  Returns 0 or an
// errno.
int make_rendezvous(OwnedFd& served, OwnedFd& sender) noexcept;

struct ServerStart {
  OwnedFd control;           // the snapshot's end of the first client's control socket
  OwnedFd rendezvous;        // receives what others send to connect
  OwnedFd rendezvous_child;  // the other end, which children inherit
  Slot* slots = nullptr;
  CancelTable* cancel_table = nullptr;
  std::shared_ptr<const Modules> modules;
  Program program;
  bool freeze = false;
  unsigned siblings = 0;  // the number of replicas to fork from it once it is frozen
  int unprepared = 0;     // an errno: something that its children need could not be made
  void (*child_main)(ChildArgs&&) = nullptr;  // the main function of a child; does not return
};

// The argument stays in place, because children read it.  The first report to the parent says,
// once, whether the snapshot serves.
[[noreturn]] void serve(ServerStart&&);

}  // namespace evparallel::detail
