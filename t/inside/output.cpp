// output.cpp - from bytes of captured streams to lines: pieces, ends, interruptions, and the last
// lines that are kept.
#include "private_names.hpp"
#include "testing.hpp"

#include "spawn/captured_output.hpp"

#include <evparallel/reactor.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using Strings = std::vector<std::string>;

namespace {

// "out 7 first", "err 7 half+": a "+" if the line continues.
std::string text_of(const par::OutputLine& line) {
  return (line.stream == STDOUT_FILENO ? "out " : "err ") + std::to_string(line.pid) + " " +
         std::string(line.text) + (line.goes_on ? "+" : "");
}

struct Captured {
  explicit Captured(par::CapturedOutput::OnLine receive = nullptr)
      : output(std::make_shared<par::CapturedOutput>(
            loop.loop(), "name", receive ? std::move(receive) : notes(), par::LastLines(3, 100))) {
    BOOST_REQUIRE(output->open(STDOUT_FILENO, out) == 0);
    BOOST_REQUIRE(output->open(STDERR_FILENO, err) == 0);
    output->start(7);
  }
  par::CapturedOutput::OnLine notes() {
    return [this](const par::OutputLine& line) { lines.push_back(text_of(line)); };
  }
  void write(const par::DupFd& to, const std::string& text) {
    BOOST_REQUIRE(::write(to.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  // Unread output does not hold the loop by itself.
  void turn() {
    const par::Timer timer = loop.after(std::chrono::milliseconds(1), [] {});
    loop.run();
  }

  par::Reactor loop;
  Strings lines;
  std::shared_ptr<par::CapturedOutput> output;
  par::DupFd out;
  par::DupFd err;
};

std::string last_of(std::size_t lines, std::size_t bytes, const Strings& said) {
  par::LastLines last(lines, bytes);
  for (const std::string& line : said) last.add(line, false);
  return last.text();
}

}  // namespace

// ---- the last lines ----

BOOST_AUTO_TEST_CASE(the_last_lines_are_bounded_by_number_and_by_bytes) {
  BOOST_TEST(last_of(20, 4096, {}) == "");
  BOOST_TEST(last_of(20, 4096, {"a"}) == "a");
  BOOST_TEST(last_of(20, 4096, {"a", "", "b"}) == "a\n\nb");
  BOOST_TEST(last_of(2, 4096, {"a", "b", "c"}) == "b\nc");
  BOOST_TEST(last_of(1, 4096, {"a", "b", "c"}) == "c");
  BOOST_TEST(last_of(2, 4096, {"", ""}) == "\n");
  BOOST_TEST(last_of(0, 4096, {"a", "b"}) == "");
  BOOST_TEST(last_of(20, 0, {"a", "b"}) == "");
  BOOST_TEST(last_of(20, 3, {"ab", "cd", "ef"}) == "ef");      // an incomplete line is dropped
  BOOST_TEST(last_of(20, 5, {"ab", "cd", "ef"}) == "cd\nef");  // exactly two lines
  BOOST_TEST(last_of(20, 3, {"ab", "cdefgh"}) == "fgh");       // unless there is no complete line
  BOOST_TEST(last_of(20, 3, {"abcdef", "x"}) == "x");
}

BOOST_AUTO_TEST_CASE(the_last_lines_are_right_after_any_number_of_lines) {
  par::LastLines last(3, 40);
  for (int i = 0; i < 1000; ++i) {
    last.add("line " + std::to_string(i), false);
    const std::string expected = "line " + std::to_string(i);
    const std::string text = last.text();
    BOOST_REQUIRE(text.size() <= 40U);
    BOOST_REQUIRE(text.substr(text.rfind('\n') + 1) == expected);
    if (i >= 2) BOOST_REQUIRE(text.substr(0, 5) == "line ");
  }
  last.add("in ", true);
  last.add("pieces", false);
  BOOST_TEST(last.text() == "line 998\nline 999\nin pieces");
}

// ---- lines ----

BOOST_AUTO_TEST_CASE(lines_are_split_at_newlines_and_not_at_writes) {
  Captured c;
  c.write(c.out, "one\ntw");
  c.write(c.err, "bad\n");
  c.turn();
  c.write(c.out, "o\n\nthree");
  c.turn();
  std::sort(c.lines.begin(), c.lines.end());
  BOOST_TEST((c.lines == Strings{"err 7 bad", "out 7 ", "out 7 one", "out 7 two"}));
  c.lines.clear();
  BOOST_TEST(c.output->finish());
  BOOST_TEST((c.lines == Strings{"out 7 three"}));
  BOOST_TEST(c.output->last_words() == "bad");
}

BOOST_AUTO_TEST_CASE(standard_output_gives_the_last_words_if_standard_error_is_empty) {
  Captured c;
  c.write(c.out, "one\ntwo\nthree\nfour");
  BOOST_TEST(c.output->finish());
  BOOST_TEST(c.output->last_words() == "two\nthree\nfour");
}

BOOST_AUTO_TEST_CASE(a_long_line_is_delivered_in_pieces) {
  Captured c;
  const std::string whole(par::CapturedOutput::line_limit, 'x');
  c.write(c.out, whole);
  c.turn();
  BOOST_TEST(c.lines.size() == 1U);
  BOOST_TEST((c.lines.back() == "out 7 " + whole + "+"));
  c.write(c.out, "rest\nnext\n");
  c.turn();
  BOOST_TEST(c.lines.size() == 3U);
  BOOST_TEST(c.lines.at(1) == "out 7 rest");
  BOOST_TEST(c.lines.at(2) == "out 7 next");
  // The line is exactly as long as a piece, with its newline behind it in the same read.
  c.write(c.err, whole.substr(10));
  c.turn();
  c.write(c.err, "0123456789\n");
  c.turn();
  BOOST_TEST(c.lines.size() == 4U);
  BOOST_TEST(c.lines.back().back() == '9');
}

BOOST_AUTO_TEST_CASE(an_end_of_file_delivers_the_rest_and_closes) {
  Captured c;
  const std::size_t before = testing::count_descriptors();
  c.write(c.out, "no newline");
  c.out.close();
  c.err.close();
  for (int i = 0; i < 4; ++i) c.turn();
  BOOST_TEST((c.lines == Strings{"out 7 no newline"}));
  BOOST_TEST(testing::count_descriptors() == before - 4);
  BOOST_TEST(c.output->finish());
  BOOST_TEST(c.lines.size() == 1U);
}

BOOST_AUTO_TEST_CASE(the_end_does_not_wait_for_others_who_hold_the_pipe) {
  Captured c;
  c.write(c.out, "last");
  BOOST_TEST(c.output->finish());  // c.out and c.err are still open
  BOOST_TEST((c.lines == Strings{"out 7 last"}));
}

BOOST_AUTO_TEST_CASE(catching_up_reads_the_available_output) {
  Captured c;
  c.write(c.out, "one\ntwo\nthr");
  c.output->catch_up();
  BOOST_TEST((c.lines == Strings{"out 7 one", "out 7 two"}));
}

// ---- callbacks that interrupt ----

BOOST_AUTO_TEST_CASE(an_exception_of_a_callback_ends_run_and_loses_or_repeats_no_line) {
  Strings lines;
  Captured c([&](const par::OutputLine& line) {
    lines.push_back(std::string(line.text));
    if (line.text == "bad") throw std::runtime_error("from the callback");
  });
  c.write(c.out, "one\nbad\ntwo\nthree");
  BOOST_CHECK_THROW(c.turn(), std::runtime_error);
  BOOST_TEST((lines == Strings{"one", "bad"}));
  c.turn();
  BOOST_TEST((lines == Strings{"one", "bad", "two"}));
  BOOST_TEST(c.output->finish());
  BOOST_TEST((lines == Strings{"one", "bad", "two", "three"}));
}

BOOST_AUTO_TEST_CASE(a_stop_leaves_the_rest_for_the_next_run) {
  Strings lines;
  par::Reactor* loop = nullptr;
  Captured c([&](const par::OutputLine& line) {
    lines.push_back(std::string(line.text));
    loop->stop();
  });
  loop = &c.loop;
  c.write(c.out, "one\ntwo\n");
  for (std::size_t i = 1; i <= 2; ++i) {
    c.turn();
    BOOST_TEST(lines.size() == i);
  }
}

// ---- without a receiver ----

BOOST_AUTO_TEST_CASE(a_released_capture_reads_on_so_that_no_writer_dies) {
  Captured c;
  const std::size_t before = testing::count_descriptors();
  const std::weak_ptr<par::CapturedOutput> still = c.output;
  c.output->detach();
  c.output.reset();
  const std::string much(60000, 'x');
  for (int i = 0; i < 20; ++i) {  // more than a pipe holds
    c.write(c.out, much);
    c.turn();
  }
  BOOST_TEST(c.lines.empty());
  BOOST_TEST(!still.expired());
  c.out.close();
  c.err.close();
  for (int i = 0; i < 4; ++i) c.turn();
  BOOST_TEST(still.expired());
  BOOST_TEST(testing::count_descriptors() == before - 4);
}

BOOST_AUTO_TEST_CASE(a_capture_released_by_its_callback_is_silent_at_once) {
  int received = 0;
  std::shared_ptr<par::CapturedOutput>* output = nullptr;
  Captured c([&](const par::OutputLine&) {
    ++received;
    (*output)->detach();
    output->reset();
  });
  output = &c.output;
  c.write(c.out, "one\ntwo\nthree\n");
  c.turn();
  c.write(c.out, "four\n");
  c.turn();
  BOOST_TEST(received == 1);
}

BOOST_AUTO_TEST_CASE(a_capture_ends_with_its_loop) {
  const std::size_t before = testing::count_descriptors();
  std::shared_ptr<par::CapturedOutput> output;
  std::weak_ptr<par::CapturedOutput> let_go;
  {
    Captured kept;
    output = kept.output;
    Captured dropped;
    let_go = dropped.output;
    dropped.output->detach();
  }
  BOOST_TEST(let_go.expired());
  BOOST_TEST(output->finish());
  output->detach();
  output.reset();
  BOOST_TEST(testing::count_descriptors() == before);
}
