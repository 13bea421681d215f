// progress.cpp - progress of a piece of work: its rate, its texts, its line on a terminal.
#include "testing.hpp"

#include <evparallel/progress.hpp>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

using namespace evparallel;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

using Clock = ProgressMeter::Clock;
const Clock::time_point start{};

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

// A stream that is not a terminal, and the bytes written to it.
class Written {
public:
  Written() : file_(std::tmpfile()) {
    if (!file_) throw std::bad_alloc();
  }
  std::FILE* stream() const { return file_.get(); }
  std::string text() const {
    std::string all(static_cast<std::size_t>(std::ftell(file_.get())), '\0');
    const ssize_t size = ::pread(::fileno(file_.get()), all.data(), all.size(), 0);
    BOOST_TEST(size == static_cast<ssize_t>(all.size()));
    return all;
  }

private:
  File file_;
};

ProgressOptions options_for(const Written& written, ProgressForm form) {
  ProgressOptions options;
  options.form = form;
  options.stream = written.stream();
  options.every = milliseconds(100);
  return options;
}

Progress progress_of(std::uint64_t done, std::uint64_t total, double rate = 0) {
  Progress progress;
  progress.done = done;
  progress.total = total;
  progress.rate = rate;
  if (rate > 0 && total > 0)
    progress.left = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(static_cast<double>(total - done) / rate));
  return progress;
}

// The one line of output.
std::string line_of(const Progress& progress, bool bytes = false) {
  const Written written;
  ProgressOptions options = options_for(written, ProgressForm::lines);
  options.bytes = bytes;
  ProgressBar bar(options);
  bar.show(progress);
  bar.finish();
  return written.text();
}

// The line when it is drawn first.  At the end it is drawn once more, to the last column but one.
std::string bar_of(const Progress& progress, unsigned width, const std::string& label = "work") {
  const Written written;
  ProgressOptions options = options_for(written, ProgressForm::bar);
  options.width = width;
  options.label = label;
  ProgressBar bar(options);
  bar.show(progress, start);
  const std::string first = written.text();
  bar.finish();
  const std::size_t cleared = std::max(2U, width) - std::max(4U, width) + 2;
  BOOST_TEST(written.text() == first + first + std::string(cleared, ' ') + "\n");
  return first;
}

// Sets a variable of the environment for one case.
class Variable {
public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* before = ::getenv(name)) before_ = before;
    if (value)
      ::setenv(name, value, 1);
    else
      ::unsetenv(name);
  }
  ~Variable() {
    if (before_.empty())
      ::unsetenv(name_);
    else
      ::setenv(name_, before_.c_str(), 1);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

private:
  const char* name_;
  std::string before_;
};

// Both ends of a terminal of 60 columns.
struct Terminal {
  int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  File slave;
  Terminal() {
    BOOST_REQUIRE(master >= 0);
    BOOST_REQUIRE(::grantpt(master) == 0);
    BOOST_REQUIRE(::unlockpt(master) == 0);
    char name[64];
    BOOST_REQUIRE(::ptsname_r(master, name, sizeof name) == 0);
    const int fd = ::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    BOOST_REQUIRE(fd >= 0);
    slave.reset(::fdopen(fd, "w"));
    const winsize size{20, 60, 0, 0};
    BOOST_REQUIRE(::ioctl(fd, TIOCSWINSZ, &size) == 0);
  }
  ~Terminal() { ::close(master); }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  std::string read_all() {
    char text[4096];
    const ssize_t size = ::read(master, text, sizeof text);
    return std::string(text, size > 0 ? static_cast<std::size_t>(size) : 0);
  }
};

}  // namespace

// ---- the meter ----

BOOST_AUTO_TEST_CASE(a_meter_has_no_rate_before_time_has_passed) {
  ProgressMeter meter(100, start);
  meter.add(10, 2);
  const Progress progress = meter.sample(start + milliseconds(50));
  BOOST_TEST(progress.done == 10U);
  BOOST_TEST(progress.failed == 2U);
  BOOST_TEST(progress.total == 100U);
  BOOST_TEST(progress.rate == 0);
  BOOST_TEST(!progress.left.has_value());
}

BOOST_AUTO_TEST_CASE(a_steady_rate_is_measured_exactly) {
  ProgressMeter meter(1000, start);
  Progress progress;
  for (int second = 1; second <= 5; ++second) {
    meter.add(100);
    progress = meter.sample(start + seconds(second));
    BOOST_TEST(progress.rate == 100, boost::test_tools::tolerance(1e-9));
  }
  BOOST_REQUIRE(progress.left.has_value());
  BOOST_TEST(std::abs((*progress.left - seconds(5)).count()) <= 1000);
}

BOOST_AUTO_TEST_CASE(a_rate_follows_recent_progress) {
  ProgressMeter meter(0, start);
  meter.add(1000);
  BOOST_TEST(meter.sample(start + seconds(1)).rate == 1000, boost::test_tools::tolerance(1e-9));
  const double after_a_second = meter.sample(start + seconds(2)).rate;
  BOOST_TEST(after_a_second < 1000);
  BOOST_TEST(after_a_second > 500);
  const double after_a_minute = meter.sample(start + seconds(62)).rate;
  BOOST_TEST(after_a_minute < 1);
}

BOOST_AUTO_TEST_CASE(a_finished_task_has_no_time_left) {
  ProgressMeter meter(10, start);
  meter.add(12);  // beyond the total
  const Progress progress = meter.sample(start + seconds(1));
  BOOST_REQUIRE(progress.left.has_value());
  BOOST_TEST(progress.left->count() == 0);
}

BOOST_AUTO_TEST_CASE(an_infinite_remaining_time_is_not_shown) {
  ProgressMeter meter(UINT64_MAX, start);
  meter.add(1);
  const Progress progress = meter.sample(start + seconds(1));
  BOOST_TEST(progress.rate > 0);
  BOOST_TEST(!progress.left.has_value());
}

// ---- lines ----

BOOST_AUTO_TEST_CASE(a_line_contains_all_figures) {
  BOOST_TEST(line_of(progress_of(123, 400)) == "30 % (123 of 400)\n");
  BOOST_TEST(line_of(progress_of(123, 0)) == "123\n");
  BOOST_TEST(line_of(progress_of(0, 400, 5.5)) == "0 % (0 of 400), 5.50/s, 1:13 left\n");
  Progress failing = progress_of(399, 400, 12345);
  failing.failed = 3;
  BOOST_TEST(line_of(failing) == "99 % (399 of 400), 12.3 k/s, 0:01 left, 3 failed\n");
  BOOST_TEST(line_of(progress_of(400, 400, 1)) == "100 % (400 of 400), 1/s\n");
}

BOOST_AUTO_TEST_CASE(bytes_have_units) {
  BOOST_TEST(line_of(progress_of(999, 0), true) == "999 B\n");
  BOOST_TEST(line_of(progress_of(1000, 2500000, 1e9), true) ==
             "0 % (1.00 kB of 2.50 MB), 1.00 GB/s, 0:01 left\n");
  BOOST_TEST(line_of(progress_of(UINT64_MAX, 0), true) == "18.4 EB\n");
}

BOOST_AUTO_TEST_CASE(long_times_are_shown_in_hours_and_days) {
  BOOST_TEST(line_of(progress_of(0, 3600, 1)) == "0 % (0 of 3600), 1/s, 1:00:00 left\n");
  BOOST_TEST(line_of(progress_of(0, 3599, 1)) == "0 % (0 of 3599), 1/s, 59:59 left\n");
  BOOST_TEST(line_of(progress_of(0, 864000, 1)) == "0 % (0 of 864000), 1/s, 10 d left\n");
}

BOOST_AUTO_TEST_CASE(lines_are_printed_at_intervals_and_at_the_end) {
  const Written written;
  ProgressOptions options = options_for(written, ProgressForm::lines);
  options.label = "counted";
  options.every = seconds(3600);
  ProgressBar bar(options);
  const Clock::time_point now = Clock::now();
  bar.show(progress_of(1, 4), now + seconds(10));
  BOOST_TEST(written.text().empty());  // not at once: there is nothing to show
  bar.show(progress_of(2, 4), now + seconds(3601));
  bar.show(progress_of(3, 4), now + seconds(3602));
  BOOST_TEST(written.text() == "counted: 50 % (2 of 4)\n");
  bar.finish();
  bar.finish();
  bar.show(progress_of(4, 4), now + seconds(100000));
  BOOST_TEST(written.text() == "counted: 50 % (2 of 4)\ncounted: 75 % (3 of 4)\n");
}

BOOST_AUTO_TEST_CASE(the_last_line_is_not_repeated_at_the_end) {
  const Written written;
  {
    ProgressBar bar(options_for(written, ProgressForm::lines));
    bar.show(progress_of(4, 4), Clock::now() + seconds(1));
  }
  BOOST_TEST(written.text() == "100 % (4 of 4)\n");
}

BOOST_AUTO_TEST_CASE(quiet_prints_nothing) {
  const Written written;
  {
    ProgressBar bar(options_for(written, ProgressForm::quiet));
    bar.show(progress_of(1, 2), Clock::now() + seconds(100));
  }
  BOOST_TEST(written.text().empty());
}

// ---- the bar ----

BOOST_AUTO_TEST_CASE(a_bar_overwrites_itself) {
  BOOST_TEST(bar_of(progress_of(10, 20), 43) == "\rwork  [=====>    ]   50%  10/20         ");
  BOOST_TEST(bar_of(progress_of(20, 20), 43) == "\rwork  [==========]  100%  20/20         ");
  BOOST_TEST(bar_of(progress_of(0, 20), 43) == "\rwork  [>         ]    0%  0/20          ");
  BOOST_TEST(bar_of(progress_of(7, 0), 43) == "\rwork  7                                 ");
}

BOOST_AUTO_TEST_CASE(a_bar_never_exceeds_its_line) {
  Progress progress = progress_of(123456789, 1234567890, 98765);
  progress.failed = 77;
  for (unsigned width = 1; width < 130; ++width) {
    const std::string text = bar_of(progress, width);
    BOOST_TEST(text.size() ==
               std::max(4U, width) - 2);  // carriage return, columns without the last 3
    BOOST_TEST(text.find('\n') == std::string::npos);
  }
  BOOST_TEST(
      bar_of(progress, 132).find("77 failed  123456789/1234567890  98.8 k/s  3:07:31 left") !=
      std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_bar_is_redrawn_at_its_interval) {
  const Written written;
  ProgressOptions options = options_for(written, ProgressForm::bar);
  ProgressBar bar(options);
  bar.show(progress_of(1, 4), start);
  bar.show(progress_of(2, 4), start + milliseconds(99));
  BOOST_TEST(written.text().find("1/4") != std::string::npos);
  BOOST_TEST(written.text().find("2/4") == std::string::npos);
  bar.show(progress_of(3, 4), start + milliseconds(100));
  BOOST_TEST(written.text().find("3/4") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(characters_of_several_bytes_have_one_column) {
  const std::string plain = bar_of(progress_of(1, 2), 43, "zahl");
  const std::string wide = bar_of(progress_of(1, 2), 43, "z\xc3\xa4hl");
  BOOST_TEST(wide.size() == plain.size() + 1);
}

BOOST_AUTO_TEST_CASE(a_label_cannot_move_the_cursor) {
  BOOST_TEST(bar_of(progress_of(1, 2), 43, "a\n\33[2Jb").find("a??[2Jb") == 1U);
}

BOOST_AUTO_TEST_CASE(a_bar_that_was_never_shown_leaves_no_line) {
  const Written written;
  { const ProgressBar bar(options_for(written, ProgressForm::bar)); }
  BOOST_TEST(written.text().empty());
}

BOOST_AUTO_TEST_CASE(a_stream_that_cannot_be_written_does_no_harm) {
  const File full(std::fopen("/dev/full", "we"));
  BOOST_REQUIRE(full);
  ProgressOptions options;
  options.form = ProgressForm::bar;
  options.stream = full.get();
  ProgressBar bar(options);
  BOOST_CHECK_NO_THROW(bar.show(progress_of(1, 2)));
  BOOST_CHECK_NO_THROW(bar.finish());
}

// ---- on a terminal ----

BOOST_AUTO_TEST_CASE(a_terminal_gets_a_bar_of_its_width) {
  const Variable kind("TERM", "xterm");
  Terminal terminal;
  ProgressOptions options;
  options.stream = terminal.slave.get();
  ProgressBar bar(options);
  BOOST_CHECK(bar.form() == ProgressForm::bar);
  bar.show(progress_of(1, 2));
  const std::string shown = terminal.read_all();
  BOOST_TEST(shown.size() == 58U);
  BOOST_TEST(shown.find("50%  1/2") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(output_that_is_not_a_terminal_gets_lines) {
  const Variable kind("TERM", "xterm");
  const Written written;
  BOOST_CHECK(ProgressBar(options_for(written, ProgressForm::automatic)).form() ==
              ProgressForm::lines);
}

BOOST_AUTO_TEST_CASE(a_terminal_that_cannot_move_its_cursor_gets_lines) {
  const Variable kind("TERM", "dumb");
  const Terminal terminal;
  ProgressOptions options;
  options.stream = terminal.slave.get();
  BOOST_CHECK(ProgressBar(options).form() == ProgressForm::lines);
}

BOOST_AUTO_TEST_CASE(failures_are_red_unless_colour_is_disabled) {
  Progress failing = progress_of(1, 2);
  failing.failed = 1;
  const Variable kind("TERM", "xterm");
  for (const char* wish : {static_cast<const char*>(nullptr), "", "1"}) {
    const Variable colour("NO_COLOR", wish);
    Terminal terminal;
    ProgressOptions options;
    options.stream = terminal.slave.get();
    ProgressBar bar(options);
    bar.show(failing);
    const bool coloured = terminal.read_all().find("\33[31m") != std::string::npos;
    BOOST_TEST(coloured == (!wish || !*wish));
  }
}
