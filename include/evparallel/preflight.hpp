// preflight.hpp - what a snapshot taken now would inherit.
// Licence: see COPYING.  Manual: evparallel_snapshot(3).
#pragma once

#include <evparallel/export.hpp>

#include <sys/types.h>

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

  std::vector<Thread> threads{};          // other than the calling one
  std::vector<Descriptor> descriptors{};  // open ones, those of the library left out
  bool descriptors_known = true;          // false: /proc is not there

  // True if Preflight::strict would refuse.
  bool in_the_way() const noexcept;
  // Names what is in the way, in one line; empty where nothing is.
  std::string describe() const;
};

EVPARALLEL_API PreflightReport preflight();

}  // namespace evparallel
