// caught_signals.hpp - the signals by which a user ends a program, caught and kept for its loop.
// Runs in: parent.  Licence: see COPYING.
//
// With a handler of its own, and not by libevent, whose signals belong to one loop of a process.
#pragma once

#include "system/descriptor.hpp"

namespace evparallel::detail {

// One object in a process catches at a time.
class CaughtSignals {
public:
  CaughtSignals() noexcept = default;
  CaughtSignals(const CaughtSignals&) = delete;
  CaughtSignals& operator=(const CaughtSignals&) = delete;
  ~CaughtSignals() { static_cast<void>(stop()); }

  // Catches SIGINT and SIGTERM from now on, unless they are ignored.  Returns 0, EBUSY if another
  // object catches them, or another errno.
  int start() noexcept;
  // Restores the dispositions.  One that was changed meanwhile stays as it is.  Returns a signal
  // that has come and was not taken, or 0.
  [[nodiscard]] int stop() noexcept;

  // Readable while take() has something to return.  It is open until the end of the object: events
  // for it may be removed after stop().
  int fd() const noexcept { return bell_.get(); }
  // A signal that has come and was not taken before, or 0.
  int take() noexcept;

private:
  OwnedFd bell_;
};

}  // namespace evparallel::detail
