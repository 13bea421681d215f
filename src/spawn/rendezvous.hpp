// rendezvous.hpp - how every Reactor of this process reaches one process of a snapshot.
// Runs in: parent.  Licence: see COPYING.
//
// The Reactor that uses a snapshot first has the control socket with which the process was forked.
// Each other one makes a control socket of its own, and sends one end of it through the rendezvous
// socket, as children do.
#pragma once

#include "system/descriptor.hpp"
#include "system/fork.hpp"
#include "shared/child_slots.hpp"

#include <sys/types.h>

#include <atomic>
#include <mutex>
#include <optional>

namespace evparallel::detail {

// Shared by all that use the process, in any thread.
class Rendezvous {
public:
  Rendezvous() noexcept = default;
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;
  ~Rendezvous();

  pid_t pid() const noexcept { return pid_.load(std::memory_order_relaxed); }  // 0: not known yet
  void set_pid(pid_t pid) noexcept { pid_.store(pid, std::memory_order_relaxed); }
  // Only its end is of interest any more.  Requires: no other thread has the object.
  void close() noexcept;
  // Whether the process has ended, and how.  Requires: pid() is known.
  bool has_ended(Reaped&);

  // Constant once a second thread has the object.
  DupFd socket;               // the end that is written to; children have it, too
  Slot* slots = nullptr;      // of all children of the process; unmapped in the destructor
  bool knows_numbers = true;  // the process has the same pids as this one

private:
  OwnerProcess home_ = OwnerProcess::here();
  std::atomic<pid_t> pid_{0};
  std::mutex lock_;
  std::optional<Reaped> how_;  // guarded by lock_: it can be waited for once
};

}  // namespace evparallel::detail
