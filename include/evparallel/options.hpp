// options.hpp - how a child is made, and what it may do.
// Licence: see COPYING.  Manual: evparallel_run(3).
#pragma once

#include <evparallel/stdio_redirect.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace evparallel {

class Snapshot;

// What the kernel allows a child; 0: what it allows the program.
struct Limits {
  // Processor time.  Above it: SIGXCPU, Cause::cpu_limit; and a second later SIGKILL.
  std::chrono::seconds cpu{0};
  // Bytes of address space above what the child was born with.  Beyond it, to allocate fails.
  std::size_t memory = 0;
};

// Whose signals from a terminal a child gets.
enum class ProcessGroup {
  own,     // none: the keys of the terminal reach the program alone
  parent,  // those of the program
};

// An aggregate: set what you need, by name.
struct Options {
  // Where the child is forked.  It need only live through the call.  Default: the one that init()
  // took; in a child, the one that forked it.
  Snapshot* snapshot = nullptr;
  // Of the task: for ps(1) and for Line.
  std::string name{};
  // run: for each call that sets none of its own, from when it is made to when it is answered.
  // process: for its whole life.  0: none.
  std::chrono::milliseconds deadline{0};
  // Between SIGTERM and SIGKILL, where the library ends a child; and what a cancelled call gets to
  // return before that.
  std::chrono::milliseconds grace{2000};
  // What a child gets to end by itself when its handle is dropped.
  std::chrono::milliseconds linger{5000};
  // Bytes; above it a message is refused on either side.
  std::size_t max_message = std::size_t{256} << 20;
  // Bytes that wait to be written; above it Pipe::send says false.
  std::size_t high_water = std::size_t{1} << 20;
  // run: how often a call is made again whose child ended before it had begun the call; or also
  // later, if the function is declared idempotent.
  unsigned retries = 0;
  bool idempotent = false;
  Limits limits{};
  int nice = 0;                 // added to the niceness of the snapshot
  std::vector<int> affinity{};  // CPUs that the child may use; empty: those of the snapshot
  // Added to the environment of the snapshot, or put in place of what is there.
  std::map<std::string, std::string> env{};
  std::string cwd{};  // where the child begins; empty: where the snapshot was taken
  Stdio in = Stdio::null();
  Stdio out = Stdio::inherit();
  Stdio err = Stdio::inherit();
  // Hears the lines of captured streams, from the loop: what was written before an answer or a
  // message before that, and all of it before the end of the child is told.
  std::function<void(const OutputLine&)> on_line{};
  // How much of the captured error output, else of the output, ExitStatus::last_words keeps.
  std::size_t last_lines = 20;
  std::size_t last_bytes = 4096;
  ProcessGroup process_group = ProcessGroup::own;
  // A crash of the child is reported with its stack, and an exception with the place that threw it:
  // evparallel_backtrace(3).  Costs nothing until then, but some microseconds for each throw.
  bool backtrace = false;
};

}  // namespace evparallel
