// preflight.hpp - what a snapshot that is taken now would inherit, and what it would not.
// Licence: see COPYING.  Manual: evparallel_snapshot(3).
#pragma once

#include <evparallel/detail/export.hpp>

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace evparallel {

struct EVPARALLEL_API PreflightReport {
  struct Thread {
    pid_t tid = 0;
    std::string name{};
  };
  // A regular file.  Its path is the target of the descriptor.
  struct File {
    bool read = false;
    bool write = false;
    bool append = false;
    std::vector<std::string> locks{};  // kinds of locks that are held through the descriptor:
                                       // "POSIX", "FLOCK", "OFDLCK", as in /proc/locks
    std::string database{};  // "SQLite": its first bytes say so; "journal": a file beside it has
                             // the same name with -wal or -journal; empty: no database is known
  };
  struct Descriptor {
    int fd = -1;
    std::string kind{};    // "file", "pipe", "socket", "eventpoll", "eventfd", "io_uring", ...
    std::string target{};  // the link in /proc
    bool refused =
        false;  // a copy would share state with the program's, such as the set of an event loop
    std::optional<File> file{};  // of a regular file
  };
  // A signal that is not at its default.  Children start with all signals at their default.
  struct Handler {
    int signum = 0;
    std::string signal{};  // "SIGINT"
    bool ignored = false;  // in that case there is no handler
    std::string module{};  // path of the program or library that contains the handler, if known
    std::string symbol{};  // the name of the handler, or its offset as "+0x1234"
  };
  // An armed timer.  It stays in the program: no fork inherits it.  Timers of timerfd are
  // descriptors.
  struct Timer {
    std::string kind{};  // "real", "virtual", "profile": of setitimer(2) and alarm(2); "posix"
    int id = -1;         // of a posix timer, as the kernel numbers it
    std::chrono::microseconds left{0};
    std::chrono::microseconds interval{0};  // 0: it fires once
  };
  // Output that was printed and is not written yet.  It is flushed before the fork.
  struct Stream {
    std::string name{};       // "stdout", "stderr", "std::cout", "std::cerr", "std::clog"
    std::size_t pending = 0;  // in bytes
  };

  std::vector<Thread> threads{};          // other than the calling one
  std::vector<Descriptor> descriptors{};  // open descriptors, except those of the library
  bool descriptors_known = true;          // false: there is no /proc
  std::vector<Handler> handlers{};
  std::vector<Timer> timers{};
  bool timers_known = true;  // false: there is no /proc/self/timers, and posix timers are not seen
  std::vector<Stream> streams{};

  // True if Preflight::strict would refuse: because of threads, or of descriptors that are
  // `refused`.
  bool in_the_way() const noexcept;
  // Names what prevents a snapshot and what to do about it, in one line; empty if nothing does.
  std::string describe() const;
  // The whole report: as text with one line for each thing, and as one JSON object.  Control
  // characters in names are shown as '?', and bytes that are not UTF-8 as U+FFFD.
  std::string text() const;
  std::string json() const;
};

EVPARALLEL_API PreflightReport preflight();

}  // namespace evparallel
