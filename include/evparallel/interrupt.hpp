// interrupt.hpp - SIGINT and SIGTERM end a command-line tool in order.
// Licence: see COPYING.  Manual: evparallel_interrupt(3).
//
// The signal becomes an exception that leaves the loop of the program, so its handles are destroyed:
// children end, and a progress bar leaves its line.
#pragma once

#include <evparallel/detail/export.hpp>

#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

namespace evparallel {

class Reactor;

namespace detail {

class Interruption;

}  // namespace detail

// Thrown by run() and by all that runs a loop, when a signal of interruptible() has come.
class EVPARALLEL_API Interrupted : public std::exception {
public:
  explicit Interrupted(int signum);
  Interrupted(const Interrupted&) noexcept;
  Interrupted& operator=(const Interrupted&) noexcept;
  ~Interrupted() override;

  const char* what() const noexcept override;  // "interrupted by SIGINT"
  int signal() const noexcept { return signum_; }
  // For main(): 128 + signal, as shells report the end by that signal.
  int exit_status() const noexcept { return 128 + signum_; }

private:
  int signum_;
  char text_[32];
};

// Catches SIGINT and SIGTERM while it lives; then they have the dispositions of before.  A signal
// that was ignored stays ignored.  Each is caught once: the second one has the default effect, so
// that it ends a program that does not end.  A signal that was caught, but not thrown, is raised at
// the end.
// Belongs to the thread that made it.  In a process that the program has forked it does nothing.
class EVPARALLEL_API Interrupts {
public:
  Interrupts() noexcept;
  Interrupts(Interrupts&&) noexcept;
  Interrupts& operator=(Interrupts&&) noexcept;
  ~Interrupts();
  void release() noexcept;  // its end

  // Calls `body`, which returns an exit status or nothing, and returns the exit status for main():
  // that of Interrupted if a signal has come.  Other exceptions pass.
  template <class Body>
  int run(Body&& body) {
    using Status = std::invoke_result_t<Body&>;
    static_assert(std::is_void_v<Status> || std::is_convertible_v<Status, int>,
                  "evparallel: the body of Interrupts::run must return an exit status, or nothing");
    int status = 0;
    try {
      if constexpr (std::is_void_v<Status>)
        body();
      else if constexpr (std::is_convertible_v<Status, int>)
        status = body();
    } catch (const Interrupted& interrupted) {
      end_body();
      return interrupted.exit_status();
    }
    const int signum = end_body();
    return signum == 0 ? status : Interrupted(signum).exit_status();
  }

private:
  friend EVPARALLEL_API Interrupts interruptible();
  friend EVPARALLEL_API Interrupts interruptible(Reactor&);
  explicit Interrupts(std::shared_ptr<detail::Interruption>) noexcept;
  int end_body() noexcept;  // a signal that was caught and not thrown, or 0
  std::shared_ptr<detail::Interruption> of_;
};

// From now on SIGINT and SIGTERM end each run(), run_for(), poll(), wait(), wait_map() and map() of
// this thread with Interrupted.  If the signal has come before, the next one throws at once.
// Fails: std::logic_error in a child, and if another Interrupts lives; std::system_error.
[[nodiscard]] EVPARALLEL_API Interrupts interruptible();
// The same for a Reactor whose turns are made by other calls as well: the program watches its fd(),
// or dispatches its borrowed base.  There Reactor::on_exception() gets the Interrupted.
[[nodiscard]] EVPARALLEL_API Interrupts interruptible(Reactor&);

}  // namespace evparallel
