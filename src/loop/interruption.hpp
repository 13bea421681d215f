// interruption.hpp - how a signal of interruptible() ends the loop that runs.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include "system/caught_signals.hpp"
#include "loop/event_loop.hpp"

#include <memory>
#include <optional>

namespace evparallel::detail {

class Interruption;

// Throws Interrupted from a loop when a signal was caught.  It does not keep run() from returning.
class InterruptWatch final : public LoopObserver {
public:
  enum class Of { run, given_loop };
  // Fails: std::system_error.
  InterruptWatch(Loop&, std::shared_ptr<Interruption>, Of);
  ~InterruptWatch() override;

private:
  void on_loop_destroyed() noexcept override { event_.unset(); }
  void on_signal();

  std::shared_ptr<Interruption> interruption_;
  Of of_;
  Event event_;
};

// Interrupts is its handle.  At most one is active in a process; it belongs to the thread that began
// it.
class Interruption final : public std::enable_shared_from_this<Interruption> {
public:
  // `given` also throws when it does not run, but the program makes its turns.
  // Fails: std::logic_error, std::system_error; nothing is changed then.
  void begin(Loop* given);
  // Returns a signal that has come and was not thrown, or 0.
  int end() noexcept;
  // For each run of a loop: `watch` is set if this thread can be interrupted.
  // Fails: std::system_error.
  static void watch_run(Loop& loop, std::optional<InterruptWatch>& watch);

private:
  friend class InterruptWatch;
  CaughtSignals signals_;
  int runs_ = 0;  // loops that run
  std::optional<InterruptWatch> given_loop_;
};

}  // namespace evparallel::detail
