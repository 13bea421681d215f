// preflight.hpp - what a snapshot taken now would inherit, and what it would not.
// Licence: see COPYING.  Manual: evparallel_snapshot(3).
#pragma once

#include <evparallel/detail/export.hpp>

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace evparallel {

struct EVPARALLEL_API PreflightReport {
  struct Thread {
    pid_t tid = 0;
    std::string name{};
  };
  struct Descriptor {
    int fd = -1;
    std::string kind{};    // "file", "pipe", "socket", "eventpoll", "eventfd", "io_uring", ...
    std::string target{};  // what /proc says it is
    bool refused =
        false;  // a copy of it would share state with the program's: an event loop's set, say
  };
  // A signal that is not at its default.  Children start with all of them there.
  struct Handler {
    int signum = 0;
    std::string signal{};  // "SIGINT"
    bool ignored = false;  // then there is no handler
    std::string module{};  // path of the program or library that has the handler, where known
    std::string symbol{};  // its name there, or "+0x1234", its offset
  };
  // A timer that is armed.  It stays with the program: no fork inherits one.  Those of timerfd are
  // descriptors.
  struct Timer {
    std::string kind{};  // "real", "virtual", "profile": of setitimer(2) and alarm(2); "posix"
    int id = -1;         // of a posix one, as the kernel counts them
    std::chrono::microseconds left{0};
    std::chrono::microseconds interval{0};  // 0: it fires once
  };
  // What was printed and is not written yet.  It is flushed before the fork.
  struct Stream {
    std::string name{};       // "stdout", "stderr", "std::cout", "std::cerr", "std::clog"
    std::size_t pending = 0;  // bytes
  };

  std::vector<Thread> threads{};          // other than the calling one
  std::vector<Descriptor> descriptors{};  // open ones, those of the library left out
  bool descriptors_known = true;          // false: /proc is not there
  std::vector<Handler> handlers{};
  std::vector<Timer> timers{};
  bool timers_known = true;  // false: /proc/self/timers is not there, and posix ones are not seen
  std::vector<Stream> streams{};

  // True if Preflight::strict would refuse: for threads, and for descriptors that are `refused`.
  bool in_the_way() const noexcept;
  // Names what is in the way, in one line; empty where nothing is.
  std::string describe() const;
  // All of the report: a line for each thing, for people; and one JSON object.  Control characters
  // in names are shown as '?', and what is no UTF-8 as U+FFFD.
  std::string text() const;
  std::string json() const;
};

EVPARALLEL_API PreflightReport preflight();

}  // namespace evparallel
