// progress.cpp - progress: its rate, its text, its bar.
// Runs in: parent.  Licence: see COPYING.
#include <evparallel/progress.hpp>

#include "base/negative.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace evparallel {

using namespace detail;

namespace {

constexpr double rate_seconds = 5;  // older samples hardly count
constexpr std::chrono::milliseconds shortest_sample{100};

double seconds_of(ProgressMeter::Clock::duration time) noexcept {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

// ---- the meter ----

ProgressMeter::ProgressMeter(std::uint64_t total, Clock::time_point now) noexcept
    : total_(total), sampled_at_(now) {}

Progress ProgressMeter::sample(Clock::time_point now) noexcept {
  if (now - sampled_at_ >= shortest_sample) {
    const double time = seconds_of(now - sampled_at_);
    const double recent = static_cast<double>(done_ - sampled_) / time;
    // The first sample has no earlier rate to be mixed with.
    const double weight = sampled_ == 0 && rate_ <= 0 ? 1 : 1 - std::exp(-time / rate_seconds);
    rate_ += weight * (recent - rate_);
    sampled_at_ = now;
    sampled_ = done_;
  }
  Progress progress{done_, failed_, total_, rate_, std::nullopt};
  constexpr double longest = 1e9;  // in seconds: a longer time is not shown
  const double ahead = total_ > done_ ? static_cast<double>(total_ - done_) : 0;
  if (total_ > 0 && rate_ > 0 && ahead / rate_ < longest)
    progress.left = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(ahead / rate_));
  return progress;
}

// ---- texts ----

namespace {

template <class... Values>
std::string formatted(const char* format, Values... values) {
  char text[64];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

// Three digits and the prefix of a power of 1000.
std::string short_number(double number, const char* unit) {
  static const char* const prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  std::size_t power = 0;
  for (; number >= 999.5 && power + 1 < std::size(prefixes); ++power) number /= 1000;
  const int digits = power == 0 && number >= 10 ? 0 : number < 9.995 ? 2 : number < 99.95 ? 1 : 0;
  const bool whole = power == 0 && number == std::floor(number);
  const char* gap = *unit || power > 0 ? " " : "";
  return formatted("%.*f", whole ? 0 : digits, number) + gap + prefixes[power] + unit;
}

std::string count_text(std::uint64_t count, bool bytes) {
  return bytes ? short_number(static_cast<double>(count), "B") : std::to_string(count);
}

std::string time_text(std::chrono::nanoseconds time) {
  // Rounded up: "0:00 left" would appear while there is time left.
  const long long all = std::chrono::ceil<std::chrono::seconds>(time).count();
  if (all < 3600) return formatted("%lld:%02lld", all / 60, all % 60);
  const long long hours = all / 3600;
  if (hours < 100) return formatted("%lld:%02lld:%02lld", hours, all / 60 % 60, all % 60);
  return formatted("%lld d", hours / 24);
}

double part_of(const Progress& progress) noexcept {
  if (progress.total == 0) return 0;
  return std::min(1.0, static_cast<double>(progress.done) / static_cast<double>(progress.total));
}

// Rounded down: not 100 % before the last item.
int percent_of(const Progress& progress) noexcept {
  return static_cast<int>(part_of(progress) * 100);
}

std::string rate_text(const Progress& progress, bool bytes) {
  return short_number(progress.rate, bytes ? "B" : "") + "/s";
}

// The width in columns, if each character takes one.
std::size_t columns_of(const std::string& text) noexcept {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// Replaces the characters that could move the cursor.
std::string printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
  return text;
}

std::string line_of(const Progress& progress, const ProgressOptions& options) {
  std::string text = options.label.empty() ? "" : options.label + ": ";
  if (progress.total > 0)
    text += formatted("%d %% (", percent_of(progress)) + count_text(progress.done, options.bytes) +
            " of " + count_text(progress.total, options.bytes) + ")";
  else
    text += count_text(progress.done, options.bytes);
  if (progress.rate > 0) text += ", " + rate_text(progress, options.bytes);
  if (progress.left && progress.done < progress.total)
    text += ", " + time_text(*progress.left) + " left";
  if (progress.failed > 0) text += ", " + std::to_string(progress.failed) + " failed";
  return text;
}

// The text right of the bar, the most important part first.
std::vector<std::string> figures_of(const Progress& progress, bool bytes) {
  std::vector<std::string> figures;
  if (progress.total > 0) figures.push_back(formatted("%3d%%", percent_of(progress)));
  if (progress.failed > 0) figures.push_back(std::to_string(progress.failed) + " failed");
  figures.push_back(progress.total > 0
                        ? count_text(progress.done, bytes) + "/" + count_text(progress.total, bytes)
                        : count_text(progress.done, bytes));
  if (progress.rate > 0) figures.push_back(rate_text(progress, bytes));
  if (progress.left && progress.done < progress.total)
    figures.push_back(time_text(*progress.left) + " left");
  return figures;
}

std::string drawn_bar(double part, std::size_t width) {
  const auto filled = static_cast<std::size_t>(part * static_cast<double>(width));
  std::string bar(width, ' ');
  std::fill_n(bar.begin(), filled, '=');
  if (filled < width) bar[filled] = '>';
  return "[" + bar + "]";
}

struct BarLine {
  std::string text;
  std::size_t columns;
};

// Figures that do not fit are left out from the end.  The bar keeps its width from first to last,
// as far as there is room for it.
BarLine bar_of(const Progress& progress, const ProgressOptions& options, std::size_t width) {
  constexpr std::size_t shortest_bar = 10;
  BarLine line{options.label, columns_of(options.label)};
  if (line.columns > width) return {std::string(), 0};
  std::string right;
  for (const std::string& figure : figures_of(progress, options.bytes)) {
    if (line.columns + right.size() + figure.size() + 2 > width) break;
    right += (right.empty() && line.columns == 0 ? "" : "  ") + figure;
  }
  const std::size_t room = width - line.columns - right.size();
  if (progress.total > 0 && room >= shortest_bar + 4) {
    const std::size_t usual = std::clamp<std::size_t>(width / 4, shortest_bar, 40);
    const std::string bar = drawn_bar(part_of(progress), std::min(room - 4, usual));
    line.text += (line.columns > 0 ? "  " : "") + bar;
    line.columns += bar.size() + (line.columns > 0 ? 2 : 0);
    if (right.compare(0, 2, "  ") != 0) right = "  " + right;
  }
  return {line.text + right, line.columns + right.size()};
}

bool can_move_cursor(std::FILE* stream) noexcept {
  const char* terminal = std::getenv("TERM");
  return ::isatty(::fileno(stream)) == 1 && terminal && *terminal &&
         std::strcmp(terminal, "dumb") != 0;
}

// https://no-color.org: set to anything but an empty string.
bool no_colour() noexcept {
  const char* wish = std::getenv("NO_COLOR");
  return wish && *wish;
}

std::size_t columns_of_terminal(std::FILE* stream) noexcept {
  winsize size{};
  constexpr std::size_t usual = 80;
  return ::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : usual;
}

}  // namespace

// ---- the bar ----

ProgressBar::ProgressBar(ProgressOptions options) : options_(std::move(options)) {
  options_.label = printable(std::move(options_.label));
  const bool moves = can_move_cursor(options_.stream);
  if (options_.form == ProgressForm::automatic)
    options_.form = moves ? ProgressForm::bar : ProgressForm::lines;
  refuse_negative("ProgressOptions::every", options_.every);
  if (options_.every == options_.every.zero())
    options_.every = std::chrono::milliseconds(options_.form == ProgressForm::bar ? 100 : 5000);
  colour_ = moves && !no_colour();
  // A log must not begin with a line without content.
  if (options_.form == ProgressForm::lines) drawn_at_ = ProgressMeter::Clock::now();
}

ProgressBar::~ProgressBar() {
  finish();
}

void ProgressBar::show(const Progress& progress, ProgressMeter::Clock::time_point now) {
  if (finished_ || options_.form == ProgressForm::quiet) return;
  last_ = progress;
  behind_ = true;
  // Compared in the unit of `every`, which may be larger than the clock's type can hold.
  if (drawn_at_ && std::chrono::floor<std::chrono::milliseconds>(now - *drawn_at_) < options_.every)
    return;
  drawn_at_ = now;
  draw();
}

// A bar is drawn once more, because a terminal has echoed the key that ends the program.
void ProgressBar::finish() {
  if (std::exchange(finished_, true)) return;
  const bool bar = options_.form == ProgressForm::bar && drawn_at_;
  if (bar || behind_) draw();
  if (!bar) return;
  std::fputc('\n', options_.stream);
  std::fflush(options_.stream);
}

void ProgressBar::draw() {
  behind_ = false;
  if (options_.form == ProgressForm::lines) {
    std::fprintf(options_.stream, "%s\n", line_of(last_, options_).c_str());
  } else {
    // The last column stays free, because a terminal would wrap the line there, and until the end
    // those in which it echoes a key: ^C.
    constexpr std::size_t widest = 4096;
    constexpr std::size_t echo = 2;
    const std::size_t all = std::min<std::size_t>(
        options_.width > 0 ? options_.width : columns_of_terminal(options_.stream), widest);
    const std::size_t width = all > echo + 1 ? all - echo - 1 : 1;
    const std::size_t cleared = finished_ ? std::max<std::size_t>(all, 2) - 1 : width;
    const BarLine line = bar_of(last_, options_, width);
    const bool red = colour_ && last_.failed > 0;
    std::fprintf(options_.stream, "\r%s%s%s%*s", red ? "\33[31m" : "", line.text.c_str(),
                 red ? "\33[0m" : "", static_cast<int>(cleared - line.columns), "");
  }
  std::fflush(options_.stream);
}

}  // namespace evparallel
