// progress.hpp - how far a long piece of work has got: counted, and shown on a terminal.
// Licence: see COPYING.  Manual: evparallel_progress(3).
//
// No thread and no timer: what is shown is drawn by whoever calls, at most so often.
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
  std::uint64_t failed = 0;                        // among those that are done
  std::uint64_t total = 0;                         // 0: unknown
  double rate = 0;                                 // done a second, of late; 0: not known yet
  std::optional<std::chrono::nanoseconds> left{};  // at this rate; empty: total or rate unknown
};

// Counts, and knows the rate: a mean of the last seconds, so that a stop is seen and a hiccup is
// not.
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
  std::uint64_t sampled_ = 0;  // done by then
};

enum class ProgressForm {
  automatic,  // a bar on a terminal that can move its cursor, else lines
  bar,        // one line that is drawn again and again
  lines,      // a line now and then, for logs
  quiet,      // nothing
};

struct ProgressOptions {
  std::string label{};
  ProgressForm form = ProgressForm::automatic;
  std::FILE* stream = stderr;  // borrowed
  bool bytes = false;          // what is counted is bytes, and shown as kB, MB, GB
  // At least so far apart.  0: a tenth of a second for a bar, five for lines.
  std::chrono::milliseconds every{0};
  unsigned width = 0;  // columns; 0: those of the terminal, else 80
};

// Move-only in effect: not copyable, not movable, since it owns a line of the terminal.
class EVPARALLEL_API ProgressBar {
public:
  explicit ProgressBar(ProgressOptions = {});
  ~ProgressBar();  // as finish()
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Draws, if the last time is long enough ago.  What could not be written is not tried again.
  void show(const Progress&, ProgressMeter::Clock::time_point now = ProgressMeter::Clock::now());
  // Draws what was shown last, and leaves the line.  Nothing is drawn from then on.
  void finish();

  ProgressForm form() const noexcept { return options_.form; }  // what automatic has become

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
