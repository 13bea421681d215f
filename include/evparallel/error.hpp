// error.hpp - errors, grouped by what the caller can do about them, with details.
// Licence: see COPYING.  Manual: evparallel_error(3).
//
// Misuse (a call after close, run() inside a callback) is std::logic_error and not covered here.
#pragma once

#include <evparallel/backtrace.hpp>

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace evparallel {

// The numbers are part of the ABI; 0 is not used, so that `Errc{}` is no error of the library.
enum class Errc {
  // Misuse, or not possible here.
  no_snapshot = 1,   // neither Options::snapshot nor init()
  refused,           // set-up refused: threads, an event loop, ... ; the text names them
  unknown_function,  // its library was loaded after the snapshot, or is gone; the text names it
  // Try later; the error of the system is in os_error().
  spawn_failed,  // the snapshot could not fork
  overloaded,    // a limit of the library
  // The task or its data.
  remote_exception,  // the task threw
  bad_message,       // could not be encoded or decoded
  too_large,         // above Options::max_message
  // The other end is gone.
  child_exited,   // the child ended by itself before it answered
  child_killed,   // a signal ended the child
  snapshot_lost,  // the snapshot is dead
  closed,         // the pipe was closed
  // The program ended it.
  cancelled,
  deadline,
  // Try later: the children of a pool cannot start, or those of a supervisor do not stay alive; the
  // text has the last error.
  unhealthy,
};

// The name of the enumerator, for logs.
EVPARALLEL_API const char* to_string(Errc) noexcept;

// An Errc converts to std::error_code, of this category; its name is "evparallel".
EVPARALLEL_API const std::error_category& error_category() noexcept;
EVPARALLEL_API std::error_code make_error_code(Errc) noexcept;

// How far a call got.  A call that was `not_sent` is safe to repeat.
enum class Delivery { not_sent, sent, started };

EVPARALLEL_API const char* to_string(Delivery) noexcept;

// Why a child ended.
enum class Cause {
  normal,         // exit status 0
  error,          // another exit status
  crash,          // a signal that neither the library nor the program sent
  killed,         // kill() of its handle
  terminated,     // terminate(), or the linger time of a dropped handle was over
  cancelled,      // it did not return from a call that was cancelled
  deadline,       // it did not return from a call past its deadline, or its own deadline passed
  cpu_limit,      // the kernel's limit for its processor time (SIGXCPU)
  out_of_memory,  // the kernel's OOM killer, as its control group counted it
  // Its snapshot is dead: it is not known how the child ended nor, if pid is 0, whether it existed.
  snapshot_lost,
  not_started,    // it never existed: it could not be forked
  start_timeout,  // it was not ready for its first call in time: Options::start_timeout
};

EVPARALLEL_API const char* to_string(Cause) noexcept;

// What the kernel counted for a child and the processes that it waited for (wait4(2)).
struct ResourceUsage {
  std::chrono::microseconds user_time{0};
  std::chrono::microseconds system_time{0};
  long max_rss = 0;       // kilobytes
  long minor_faults = 0;  // pages that needed no disk
  long major_faults = 0;  // pages that did
};

// How a child ended.
struct EVPARALLEL_API ExitStatus {
  pid_t pid = 0;
  int wait_status = 0;  // as in waitpid(2); meaningless for Cause::snapshot_lost
  Cause cause = Cause::normal;
  ResourceUsage usage{};
  // The last lines of its standard error, or else of its standard output, if Options had them
  // captured.
  std::string last_words{};
  // Of a child with Options::backtrace that has crashed; otherwise null.
  std::shared_ptr<const CrashReport> crash{};
  // Of Snapshot::on_lost(): a process of a snapshot has ended, and not a child.
  bool of_snapshot = false;

  bool exited() const noexcept;  // by exit(3) or _exit(2): code() is valid
  int code() const noexcept;
  bool signalled() const noexcept;  // by a signal: signal() is valid
  int signal() const noexcept;
  bool core_dumped() const noexcept;
  std::string describe() const;  // "child 4711 was killed by SIGSEGV (core dumped)"
};

// Thrown by set-up in the parent; later errors are delivered in a Result or to on_error.  Copying
// never throws: the details are in a shared object that is never changed.
class EVPARALLEL_API Error : public std::runtime_error {
public:
  Error(Errc code, const std::string& text);
  Error(const Error&) noexcept;
  Error& operator=(const Error&) noexcept;
  ~Error() override;

  Errc code() const noexcept;
  Delivery delivery() const noexcept;
  int os_error() const noexcept;                           // errno, or 0
  const std::optional<ExitStatus>& exit() const noexcept;  // how the child died, if one did
  const std::string& remote_type()
      const noexcept;  // demangled type of the exception thrown in the child
  const std::string& last_words() const noexcept;  // of exit(); empty if there is none
  // With Options::backtrace: of the throw site of the exception, or of the crash of the child.
  const std::vector<StackFrame>& backtrace() const noexcept;
  // One frame a line; if there is none, one line that says why.
  std::string describe_backtrace() const;

  // The same error with one more detail.
  Error with_delivery(Delivery) const;
  Error with_os_error(int) const;
  Error with_exit(const ExitStatus&) const;
  Error with_remote_type(const std::string&) const;
  Error with_backtrace(const std::vector<StackFrame>&) const;

private:
  struct Details;
  template <class Change>
  Error changed(Change) const;
  std::shared_ptr<const Details> details_;
};

}  // namespace evparallel

namespace std {

template <>
struct is_error_code_enum<evparallel::Errc> : true_type {};

}  // namespace std
