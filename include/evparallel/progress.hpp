// progress.hpp - the progress of long work: counted, and shown on a terminal.
// Licence: see COPYING.  Manual: evparallel_progress(3).
//
// There is no thread and no timer: the caller draws, and drawing is limited to an interval.
#pragma once

#include <evparallel/detail/export.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

namespace evparallel {

struct Progress {
  std::uint64_t done = 0;                          // with those that failed
  std::uint64_t failed = 0;                        // included in `done`
  std::uint64_t total = 0;                         // 0: unknown
  double rate = 0;                                 // recent items a second; 0: not known yet
  std::optional<std::chrono::nanoseconds> left{};  // at this rate; empty: total or rate unknown
};

// Counts, and computes the rate as a mean of the last seconds, so that a stop shows and a short
// delay does not.
class EVPARALLEL_API ProgressMeter {
public:
  using Clock = std::chrono::steady_clock;

  explicit ProgressMeter(std::uint64_t total = 0, Clock::time_point now = Clock::now()) noexcept;

  void set_total(std::uint64_t total) noexcept { total_ = total; }
  // `failed` of the `done` have failed.
  void add(std::uint64_t done, std::uint64_t failed = 0) noexcept {
    done_ += done;
    failed_ += failed;
  }
  Progress sample(Clock::time_point now = Clock::now()) noexcept;

private:
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  std::uint64_t failed_ = 0;
  double rate_ = 0;
  Clock::time_point sampled_at_;
  std::uint64_t sampled_ = 0;  // done at that time
};

enum class ProgressForm {
  automatic,  // a bar on a terminal that can move its cursor, else lines
  bar,        // one line that is redrawn
  lines,      // a line from time to time, for logs
  quiet,      // nothing
};

struct ProgressOptions {
  std::string label{};
  ProgressForm form = ProgressForm::automatic;
  std::FILE* stream = stderr;  // borrowed
  bool bytes = false;          // the count is bytes, and shown as kB, MB, GB
  // The shortest interval between two of them.  0: a tenth of a second for a bar, five seconds for
  // lines.
  std::chrono::milliseconds every{0};
  unsigned width = 0;  // columns; 0: those of the terminal, else 80
};

// Neither copyable nor movable, because it owns a line of the terminal.
class EVPARALLEL_API ProgressBar {
public:
  explicit ProgressBar(ProgressOptions = {});
  ~ProgressBar();  // as finish()
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Draws if the interval since the last time is over.  Output that could not be written is not
  // repeated.
  void show(const Progress&, ProgressMeter::Clock::time_point now = ProgressMeter::Clock::now());
  // Draws the last progress, and leaves the line; a bar also erases the key that a terminal has
  // echoed in it.  From then on nothing is drawn.
  void finish();

  ProgressForm form() const noexcept { return options_.form; }  // what `automatic` has become

private:
  void draw();
  ProgressOptions options_;
  bool colour_ = false;
  Progress last_{};
  std::optional<ProgressMeter::Clock::time_point> drawn_at_{};
  bool behind_ = false;  // last_ has not been drawn
  bool finished_ = false;
};

}  // namespace evparallel
