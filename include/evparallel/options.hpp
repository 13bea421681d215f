// options.hpp - how a child is made, and what limits it has.
// Licence: see COPYING.  Manual: evparallel_run(3).
#pragma once

#include <evparallel/start_task.hpp>
#include <evparallel/stdio_redirect.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace evparallel {

class Snapshot;

// Limits that the kernel enforces on a child; 0: those of the program.
struct Limits {
  // Processor time.  Above it: SIGXCPU, Cause::cpu_limit; and a second later SIGKILL.
  std::chrono::seconds cpu{0};
  // Bytes of address space above what the child has at its start.  Beyond it, allocations fail.
  std::size_t memory = 0;
  // run and pool: processor time of one call; of a task with a Reply, until the task returns.
  // Above it the child ends as above `cpu`.
  std::chrono::seconds cpu_per_call{0};
};

// Which signals of a terminal a child receives.
enum class ProcessGroup {
  own,     // none: the keys of the terminal reach only the program
  parent,  // those of the program
};

// An aggregate: set what you need, by name.
struct Options {
  // The snapshot that forks the child.  It need only live during the call.  Default: the one that
  // init() took; in a child, the one that forked it.
  Snapshot* snapshot = nullptr;
  // Name of the task, for ps(1) and for OutputLine.
  std::string name{};
  // run: for each call that sets none of its own, from the call to its answer.  process: for its
  // whole life.  0: none.
  std::chrono::milliseconds deadline{0};
  // From the time when the child has its task until it is ready for its first call, or begins the
  // function of a process: start hooks, on_start and the maker of a state run then.  Above it the
  // child is ended, and its start has failed: Cause::start_timeout.  0: no limit.
  std::chrono::milliseconds start_timeout{60000};
  // The time between SIGTERM and SIGKILL when the library ends a child; also the time that a
  // cancelled call gets to return before SIGTERM.
  std::chrono::milliseconds grace{2000};
  // The time that a child gets to end by itself when its handle is dropped.
  std::chrono::milliseconds linger{5000};
  // In bytes; a larger message is refused on either side.
  std::size_t max_message = std::size_t{256} << 20;
  // In bytes of memory: a message that a codec reads by way of a document (JsonIo of structures,
  // CborIo, MsgpackIo) is refused by either side if the document would take more.  In units of
  // 1024 bytes.
  std::size_t max_decoded = std::size_t{512} << 20;
  // In bytes that wait to be written; above it Pipe::send returns false.
  std::size_t high_water = std::size_t{1} << 20;
  // run: how often a call is made again if its child ended before it had begun the call; or also
  // after that, if the function is declared idempotent.
  unsigned retries = 0;
  bool idempotent = false;
  Limits limits{};
  int nice = 0;                 // added to the niceness of the snapshot
  std::vector<int> affinity{};  // CPUs that the child may use; empty: those of the snapshot
  // Added to the environment of the snapshot; replaces variables of the same name.
  std::map<std::string, std::string> env{};
  std::string cwd{};  // working directory; empty: that of the snapshot
  Stdio in = Stdio::null();
  Stdio out = Stdio::inherit();
  Stdio err = Stdio::inherit();
  // Called from the loop with the lines of captured streams.  Lines that were written before an
  // answer or a message come before it, and all lines come before the end of the child is reported.
  std::function<void(const OutputLine&)> on_line{};
  // How much of the captured standard error, else of standard output, ExitStatus::last_words keeps.
  std::size_t last_lines = 20;
  std::size_t last_bytes = 4096;
  // What the child runs once, before its own function: void(), sent like that one; bind() gives it
  // arguments.  An exception ends the child: its start has failed.
  StartTask on_start{};
  ProcessGroup process_group = ProcessGroup::own;
  // A crash of the child is reported with its stack, and an exception with its throw site:
  // evparallel_backtrace(3).  Costs nothing until then, except some microseconds for each throw.
  bool backtrace = false;
};

}  // namespace evparallel
