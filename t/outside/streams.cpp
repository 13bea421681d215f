// streams.cpp - the surroundings of a child: standard streams, last words, environment, directory.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using par::Stdio;
using testing::descriptors_of;
using testing::error_of;
using testing::has;
using testing::result_of_call;
using Strings = std::vector<std::string>;
using namespace std::chrono_literals;

void testing_main_init() {
  ::setenv("EVPARALLEL_TEST", "of the snapshot", 1);
  testing::take_default_snapshot();
}

namespace {

par::Options captured() {
  par::Options options;
  options.out = Stdio::capture();
  options.err = Stdio::capture();
  return options;
}

// Records all lines: "out text", "err text".
par::Options captured(Strings& lines) {
  par::Options options = captured();
  options.on_line = [&lines](const par::OutputLine& line) {
    lines.push_back((line.stream == STDOUT_FILENO ? "out " : "err ") + std::string(line.text));
  };
  return options;
}

std::string link_of(const std::string& path) {
  char target[256] = {};
  return ::readlink(path.c_str(), target, sizeof target - 1) > 0 ? target : "?";
}

// In a child: the target of descriptor `number`.
std::string target_of(int number) {
  return link_of("/proc/self/fd/" + std::to_string(number));
}

struct PipeEnds {
  int reading = -1;
  int writing = -1;
  PipeEnds() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    reading = ends[0];
    writing = ends[1];
  }
  PipeEnds(const PipeEnds&) = delete;
  PipeEnds& operator=(const PipeEnds&) = delete;
  ~PipeEnds() {
    for (const int fd : {reading, writing})
      if (fd >= 0) ::close(fd);
  }
  void close_writing() { ::close(std::exchange(writing, -1)); }
  std::string read_all() const {
    std::string text;
    char buffer[4096];
    for (ssize_t got; (got = ::read(reading, buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<std::size_t>(got));
    return text;
  }
};

std::string misuse(const par::Options& options) {
  par::Reactor loop;
  std::string reported[2];
  for (int i = 0; i < 2; ++i) {
    try {
      if (i == 0)
        static_cast<void>(par::run(
            loop, [](int x) { return x; }, options));
      else
        static_cast<void>(par::process(
            loop, [](par::Pipe<int, int>) {}, options));
    } catch (const std::logic_error& error) {
      reported[i] = error.what();
    }
  }
  BOOST_TEST(reported[0] == reported[1]);
  return reported[0];
}

int say_both(int x) {
  std::printf("said %d\n", x);
  std::fprintf(stderr, "warned %d\n", x);
  return x;
}

}  // namespace

// ---- capture ----

BOOST_AUTO_TEST_CASE(both_streams_are_captured_in_lines_with_pid_and_name) {
  par::Reactor loop;
  struct Received {
    pid_t pid;
    std::string name;
    int stream;
    std::string text;
    bool goes_on;
  };
  std::vector<Received> received;
  par::Options options = captured();
  options.name = "resize";
  options.on_line = [&](const par::OutputLine& line) {
    received.push_back(
        {line.pid, std::string(line.name), line.stream, std::string(line.text), line.goes_on});
  };
  auto f = par::run(
      loop,
      [](int) {
        say_both(1);
        std::cout << "streamed\n";
        return static_cast<int>(::getpid());
      },
      options);
  const int pid = result_of_call(loop, f, 1).value();
  BOOST_REQUIRE(received.size() == 3U);
  std::size_t errors = 0;
  for (const Received& line : received) {
    BOOST_TEST(line.pid == pid);
    BOOST_TEST(line.name == "resize");
    BOOST_TEST(!line.goes_on);
    if (line.stream == STDERR_FILENO) {
      ++errors;
      BOOST_TEST(line.text == "warned 1");
    }
  }
  BOOST_TEST(errors == 1U);
}

BOOST_AUTO_TEST_CASE(output_of_a_call_is_delivered_before_its_answer) {
  par::Reactor loop;
  Strings events;
  auto f = par::run(loop, say_both, captured(events));
  for (int i = 0; i < 100; ++i) {
    f(i, [&events, i](par::Result<int>) { events.push_back("answer " + std::to_string(i)); });
    if (i % 10 == 0) loop.run();
  }
  loop.run();
  BOOST_REQUIRE(events.size() == 300U);
  const auto place = [&](const std::string& event) {
    return std::find(events.begin(), events.end(), event) - events.begin();
  };
  for (int i = 0; i < 100; ++i) {
    const std::string x = std::to_string(i);
    BOOST_TEST(place("out said " + x) < place("answer " + x));
    BOOST_TEST(place("err warned " + x) < place("answer " + x));
  }
}

// The answer may arrive before the pid is known.
BOOST_AUTO_TEST_CASE(output_of_a_first_call_has_its_pid_and_is_delivered_before_its_answer) {
  par::Reactor loop;
  for (int i = 0; i < 200; ++i) {
    std::vector<pid_t> speakers;
    par::Options options;
    options.out = Stdio::capture();
    options.on_line = [&](const par::OutputLine& line) { speakers.push_back(line.pid); };
    auto f = par::run(
        loop,
        [](int) {
          std::printf("here\n");
          return static_cast<int>(::getpid());
        },
        options);
    f(1, [&](par::Result<int> pid) {
      BOOST_TEST(speakers.size() == 1U);
      BOOST_TEST(std::count(speakers.begin(), speakers.end(), pid.value()) == 1);
      loop.stop();
    });
    loop.run();
  }
}

BOOST_AUTO_TEST_CASE(output_of_a_process_is_delivered_before_its_message_and_its_end) {
  par::Reactor loop;
  Strings events;
  auto p = par::process(
      loop,
      [](par::Pipe<int, int> pipe) {
        std::printf("before\n");
        std::fflush(stdout);
        pipe.send(1);
        pipe.on_end([pipe] {
          std::printf("after, without a newline");
          pipe.close();
        });
      },
      captured(events));
  p.on_message([&](int) {
    events.push_back("message");
    p.close();
  });
  p.on_end([&] { events.push_back("end"); });
  p.on_exit([&](const par::ExitStatus& how) {
    events.push_back("exit");
    BOOST_TEST(how.last_words == "before\nafter, without a newline");
    BOOST_TEST(!has(how.describe(), "last words"));  // a success has none
  });
  loop.run();
  const Strings in_order = {"out before", "message", "out after, without a newline", "exit"};
  events.erase(std::remove(events.begin(), events.end(), "end"), events.end());
  BOOST_TEST(events == in_order, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(one_stream_is_captured_and_so_is_output_of_started_programs) {
  par::Reactor loop;
  Strings lines;
  par::Options options;
  options.out = Stdio::capture();
  options.on_line = captured(lines).on_line;
  auto f = par::run(
      loop, [](int) { return std::system("echo from a program"); }, options);
  BOOST_TEST(result_of_call(loop, f, 1).value() == 0);
  BOOST_TEST((lines == Strings{"out from a program"}));
}

BOOST_AUTO_TEST_CASE(a_child_captures_what_its_own_child_prints) {
  par::Reactor loop;
  auto f = par::run(loop, [](int) {
    par::Reactor& inner = par::this_reactor();
    Strings lines;
    auto g = par::run(inner, say_both, captured(lines));
    std::string all;
    std::size_t answers = 0;
    par::Timer patience = inner.after(testing::patience(), [&] { inner.stop(); });
    g(5, [&](par::Result<int>) {
      ++answers;
      inner.stop();
    });
    inner.run();
    std::sort(lines.begin(), lines.end());
    for (const std::string& line : lines) all += line + ";";
    return answers == 1 ? all : "no answer";
  });
  BOOST_TEST(result_of_call(loop, f, 1).value() == "err warned 5;out said 5;");
}

BOOST_AUTO_TEST_CASE(a_replacement_is_captured_like_the_first_child) {
  par::Reactor loop;
  std::vector<pid_t> speakers;
  par::Options options;
  options.err = Stdio::capture();
  options.on_line = [&](const par::OutputLine& line) { speakers.push_back(line.pid); };
  auto f = par::run(
      loop,
      [](int x) {
        std::fprintf(stderr, "here\n");
        if (x == 0) ::raise(SIGKILL);
        return x;
      },
      options);
  BOOST_TEST(!result_of_call(loop, f, 0).has_value());
  BOOST_TEST(result_of_call(loop, f, 1).value() == 1);
  BOOST_REQUIRE(speakers.size() == 2U);
  BOOST_TEST(speakers[0] != speakers[1]);
}

// ---- last words ----

BOOST_AUTO_TEST_CASE(a_call_gets_the_last_words_of_a_crash) {
  par::Reactor loop;
  auto f = par::run(
      loop,
      [](int x) {
        std::printf("not this\n");
        for (int i = 0; i < 50; ++i) std::fprintf(stderr, "line %d\n", i);
        std::fprintf(stderr, "about to die\a");
        ::signal(SIGABRT, SIG_DFL);
        std::abort();
        return x;
      },
      captured());
  const par::Result<int> answer = result_of_call(loop, f, 1);
  BOOST_REQUIRE(!answer.has_value());
  const par::Error& error = answer.error();
  BOOST_TEST((error.code() == par::Errc::child_killed));
  BOOST_TEST(has(error.what(), "SIGABRT"));
  BOOST_TEST(has(error.what(), "; its last words: about to die?"));
  BOOST_REQUIRE(error.exit().has_value());
  BOOST_TEST(error.last_words() == error.exit()->last_words);
  BOOST_TEST(has(error.last_words(), "line 31\n"));
  BOOST_TEST(error.last_words().substr(error.last_words().rfind('\n')) == "\nabout to die\a");
  BOOST_TEST(std::count(error.last_words().begin(), error.last_words().end(), '\n') == 19);
}

BOOST_AUTO_TEST_CASE(a_process_gets_the_last_words_in_its_error_and_exit_status) {
  par::Reactor loop;
  par::Options options = captured();
  options.last_lines = 1;
  auto p = par::process(
      loop,
      [](par::Pipe<int, int>) {
        std::printf("first\nsecond\n");  // line by line, although it is not a terminal
        ::raise(SIGKILL);
      },
      options);
  std::string reported;
  p.on_error([&](const par::Error& error) { reported = error.last_words(); });
  std::string last;
  p.on_exit([&](const par::ExitStatus& how) {
    last = how.last_words;
    BOOST_TEST(has(how.describe(), "; its last words: second"));
  });
  loop.run();
  BOOST_TEST(reported == "second");
  BOOST_TEST(last == "second");
}

BOOST_AUTO_TEST_CASE(there_are_no_last_words_without_capture) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    ::raise(SIGKILL);
    return x;
  });
  const par::Result<int> answer = result_of_call(loop, f, 1);
  BOOST_REQUIRE(!answer.has_value());
  BOOST_TEST(answer.error().last_words() == "");
  BOOST_TEST(!has(answer.error().what(), "last words"));
  BOOST_TEST(par::Error(par::Errc::closed, "x").last_words() == "");
}

// ---- large output, and other holders of the pipe ----

BOOST_AUTO_TEST_CASE(a_hundred_megabytes_of_output_leave_no_memory_behind) {
  par::Reactor loop;
  constexpr std::size_t chunk = 1 << 20;
  constexpr int chunks = 100;
  std::size_t bytes = 0;
  std::size_t longest = 0;
  par::Options options = captured();
  options.on_line = [&](const par::OutputLine& line) {
    bytes += line.text.size() + (line.goes_on ? 0 : 1);
    longest = std::max(longest, line.text.size());
  };
  auto f = par::run(
      loop,
      [](int n) {
        std::string text(chunk, 'x');  // one line of nearly a megabyte, and many of 64 bytes
        for (std::size_t i = chunk / 2; i < chunk; i += 64) text[i] = '\n';
        text.back() = '\n';
        for (int i = 0; i < n; ++i)
          for (std::size_t at = 0; at < chunk;) {
            const ssize_t put = ::write(STDOUT_FILENO, text.data() + at, chunk - at);
            if (put <= 0) return -1;
            at += static_cast<std::size_t>(put);
          }
        return n;
      },
      options);
  BOOST_TEST(result_of_call(loop, f, 1).value() == 1);  // buffers have reached their size
  rusage before{};
  ::getrusage(RUSAGE_SELF, &before);
  BOOST_TEST(result_of_call(loop, f, chunks).value() == chunks);
  rusage after{};
  ::getrusage(RUSAGE_SELF, &after);
  BOOST_TEST(bytes == chunk * (chunks + 1));
  BOOST_TEST(longest <= 65536U);
  if (!testing::sanitized) BOOST_TEST(after.ru_maxrss - before.ru_maxrss < 4096);  // kilobytes
}

BOOST_AUTO_TEST_CASE(a_child_waits_while_nobody_reads_its_output) {
  par::Reactor loop;
  int lines = 0;
  par::Options options = captured();
  options.on_line = [&](const par::OutputLine&) { ++lines; };
  auto p = par::process(
      loop,
      [](par::Pipe<int, int> pipe) {
        for (int i = 0; i < 20000; ++i) std::printf("a line of some thirty bytes %d\n", i);
        pipe.close();
      },
      options);
  bool normal = false;
  p.on_end([&] { p.close(); });
  p.on_exit([&](const par::ExitStatus& how) { normal = how.cause == par::Cause::normal; });
  loop.run();
  BOOST_TEST(normal);
  BOOST_TEST(lines == 20000);
}

BOOST_AUTO_TEST_CASE(an_orphan_that_holds_the_pipe_delays_nothing, *testing::guarantee("A.6")) {
  par::Reactor loop;
  PipeEnds line;  // its end of file shows that the orphan is gone
  Strings lines;
  par::Options options = captured(lines);
  options.in = Stdio::fd(line.reading);
  auto f = par::run(
      loop,
      [](int) {
        const pid_t pid = ::fork();
        if (pid == 0) {
          ::setsid();  // out of the child's group, with all its streams
          char byte;
          const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
          ::_exit(got == 0 ? 0 : 1);
        }
        std::printf("left behind\n");
        std::fflush(stdout);
        ::raise(SIGKILL);
        return 1;
      },
      options);
  const std::size_t before = testing::count_descriptors();
  const par::Result<int> answer = result_of_call(loop, f, 1);  // it has not ended
  BOOST_TEST(!answer.has_value());
  BOOST_TEST((lines == Strings{"out left behind"}));
  // Both ends are closed here, and so is the data socket.
  BOOST_TEST(testing::count_descriptors() <= before - 3);
}

// ---- callbacks ----

BOOST_AUTO_TEST_CASE(an_exception_of_on_line_is_thrown_out_of_run_and_the_rest_comes_in_the_next) {
  par::Reactor loop;
  Strings lines;
  par::Options options = captured();
  options.on_line = [&](const par::OutputLine& line) {
    lines.push_back(std::string(line.text));
    if (lines.size() == 2) throw std::runtime_error("from on_line");
  };
  auto p = par::process(
      loop,
      [](par::Pipe<int, int>) {
        std::printf("one\ntwo\nthree\nfour");
        std::exit(3);
      },
      options);
  int code = -1;
  p.on_exit([&](const par::ExitStatus& how) { code = how.code(); });
  BOOST_CHECK_EXCEPTION(loop.run(), std::runtime_error,
                        [](const std::exception& e) { return has(e.what(), "from on_line"); });
  BOOST_TEST(lines.size() == 2U);
  loop.run();
  BOOST_TEST((lines == Strings{"one", "two", "three", "four"}));
  BOOST_TEST(code == 3);
}

BOOST_AUTO_TEST_CASE(on_line_may_destroy_the_process) {
  par::Reactor loop;
  int lines = 0;
  std::unique_ptr<par::Process<int, int>> p;
  par::Options options = captured();
  options.on_line = [&](const par::OutputLine&) {
    ++lines;
    p.reset();
  };
  p = std::make_unique<par::Process<int, int>>(par::process(
      loop, [](par::Pipe<int, int>) { std::printf("one\ntwo\nthree\n"); }, options));
  p->on_exit([](const par::ExitStatus&) { BOOST_ERROR("on_exit of a process that is destroyed"); });
  loop.run();
  BOOST_TEST(lines == 1);
}

BOOST_AUTO_TEST_CASE(a_dropped_child_may_still_write_its_output) {
  par::Reactor loop;
  PipeEnds end;
  par::Options options;
  options.linger = 1h;
  options.out = Stdio::capture();
  options.err = Stdio::fd(end.writing);
  {
    auto p = par::process(
        loop,
        [](par::Pipe<int, int> pipe) {
          pipe.send(1);
          pipe.on_end([pipe] {
            const std::string much(300000, 'x');  // more than the pipe holds
            std::puts(much.c_str());
            std::fputs("all of it was written", stderr);
            pipe.close();
          });
        },
        options);
    p.on_message([&](int) { loop.stop(); });
    loop.run();
  }
  end.close_writing();
  bool ended = false;
  par::Watch watch = loop.on_readable(end.reading, [&] {
    ended = true;
    watch.cancel();
  });
  loop.run();
  BOOST_TEST(ended);
  BOOST_TEST(end.read_all() == "all of it was written");
}

// ---- given, null, inherited streams ----

BOOST_AUTO_TEST_CASE(given_descriptors_become_streams_of_the_child_and_stay_open_in_the_caller) {
  par::Reactor loop;
  PipeEnds in;
  PipeEnds out;
  PipeEnds err;
  BOOST_TEST(::write(in.writing, "for the child", 13) == 13);
  in.close_writing();
  par::Options options;
  options.in = Stdio::fd(in.reading);
  options.out = Stdio::fd(out.writing);
  options.err = Stdio::fd(err.writing);
  {
    auto f = par::run(
        loop,
        [](int x) {
          char text[32] = {};
          if (std::fgets(text, sizeof text, stdin) == nullptr) return -1;
          std::printf("read: %s\n", text);
          std::cerr << "to the other\n";
          return x;
        },
        options);
    BOOST_TEST(::fcntl(out.writing, F_GETFD) == FD_CLOEXEC);  // still open, and unchanged
    out.close_writing();
    err.close_writing();
    BOOST_TEST(result_of_call(loop, f, 2).value() == 2);
  }
  BOOST_TEST(out.read_all() == "read: for the child\n");  // to its end: no other process holds it
  BOOST_TEST(err.read_all() == "to the other\n");
}

BOOST_AUTO_TEST_CASE(a_socket_given_as_a_stream_is_never_shut_down) {
  par::Reactor loop;
  int ends[2];
  BOOST_REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  par::Options options;
  options.out = Stdio::fd(ends[1]);
  for (int i = 0; i < 2; ++i) {
    auto f = par::run(
        loop, [](int x) { return std::printf("%d", x); }, options);
    BOOST_TEST(result_of_call(loop, f, 7).value() == 1);
  }
  BOOST_TEST(::send(ends[1], "mine", 4, MSG_NOSIGNAL) == 4);
  char text[16] = {};
  BOOST_TEST(::recv(ends[0], text, 6, MSG_WAITALL) == 6);
  BOOST_TEST(text == "77mine");
  for (const int fd : ends) ::close(fd);
}

BOOST_AUTO_TEST_CASE(a_replacement_has_the_given_descriptors_too) {
  par::Reactor loop;
  PipeEnds out;
  par::Options options;
  options.out = Stdio::fd(out.writing);
  {
    auto f = par::run(
        loop,
        [](int x) {
          std::printf("%d\n", x);
          std::fflush(stdout);
          if (x == 1) ::raise(SIGKILL);
          return x;
        },
        options);
    out.close_writing();
    BOOST_TEST(!result_of_call(loop, f, 1).has_value());
    BOOST_TEST(result_of_call(loop, f, 2).value() == 2);
  }
  BOOST_TEST(out.read_all() == "1\n2\n");
}

BOOST_AUTO_TEST_CASE(null_and_default_streams_work) {
  par::Reactor loop;
  auto plain = par::run(loop, target_of);
  BOOST_TEST(result_of_call(loop, plain, 0).value() == "/dev/null");
  BOOST_TEST(result_of_call(loop, plain, 1).value() == target_of(1));
  BOOST_TEST(result_of_call(loop, plain, 2).value() == target_of(2));
  PipeEnds in;
  par::Options options;
  options.in = Stdio::fd(in.reading);
  options.out = Stdio::null();
  options.err = Stdio::null();
  auto f = par::run(loop, target_of, options);
  BOOST_TEST(result_of_call(loop, f, 0).value() == target_of(in.reading));
  BOOST_TEST(result_of_call(loop, f, 1).value() == "/dev/null");
  BOOST_TEST(result_of_call(loop, f, 2).value() == "/dev/null");
  auto writes = par::run(
      loop, [](int) { return ::write(STDOUT_FILENO, "x", 1) == 1 && std::puts("x") >= 0; },
      options);
  BOOST_TEST(result_of_call(loop, writes, 1).value());
}

BOOST_AUTO_TEST_CASE(standard_input_is_inherited_on_request) {
  const int status = testing::elsewhere([] {
    PipeEnds in;
    par::init();
    ::dup2(in.reading, STDIN_FILENO);  // that of the call, not of the snapshot
    if (::write(in.writing, "x", 1) != 1) return 1;
    par::Reactor loop;
    par::Options options;
    options.in = Stdio::inherit();
    auto f = par::run(
        loop, [](int) { return std::getchar(); }, options);
    return result_of_call(loop, f, 1).value() == 'x' ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

// ---- misuse, and no descriptors ----

BOOST_AUTO_TEST_CASE(invalid_options_are_refused_at_the_call) {
  par::Options options;
  options.in = Stdio::capture();
  BOOST_TEST(has(misuse(options), "Options::in cannot be captured"));
  options = {};
  options.err = Stdio::fd(1000000);
  BOOST_TEST(has(misuse(options), "Options::err names descriptor 1000000, which is not open"));
  options = {};
  options.out = Stdio::fd(-1);
  BOOST_TEST(has(misuse(options), "Options::out names descriptor -1"));
  for (const char* name : {"", "A=B", "="}) {
    options = {};
    options.env[name] = "x";
    BOOST_TEST(has(misuse(options), "Options::env contains an invalid name"));
  }
  const std::string null("a\0b", 3);
  options = {};
  options.env["A"] = null;
  BOOST_TEST(has(misuse(options), "Options::env contains a null byte"));
  options = {};
  options.env[null] = "x";
  BOOST_TEST(has(misuse(options), "Options::env contains a null byte"));
  options = {};
  options.cwd = null;
  BOOST_TEST(has(misuse(options), "Options::cwd contains a null byte"));
  options = {};
  options.name = null;
  BOOST_TEST(has(misuse(options), "Options::name contains a null byte"));
  par::Reactor loop;
  auto f = par::run(loop, say_both, captured());
  BOOST_TEST(result_of_call(loop, f, 1).value() == 1);
}

BOOST_AUTO_TEST_CASE(a_capture_without_descriptors_fails_and_leaves_nothing_open) {
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    const std::size_t before = testing::count_descriptors();
    par::Options options = captured();
    options.in = Stdio::fd(STDIN_FILENO);
    options.last_lines = 3;
    // With room for 0, 1, ... more: a copy for the Remote, a socket pair, a copy, two pipes.
    std::size_t failed = 0;
    bool worked = false;
    for (rlim_t room = 0; room < 12 && !worked; ++room) {
      rlimit limit{};
      ::getrlimit(RLIMIT_NOFILE, &limit);
      limit.rlim_cur = static_cast<rlim_t>(::dup(0)) + room;  // the lowest free number
      ::close(static_cast<int>(limit.rlim_cur - room));
      ::setrlimit(RLIMIT_NOFILE, &limit);
      const auto error = error_of([&] {
        auto p = par::process(
            loop, [](par::Pipe<int, int>) {}, options);
        worked = true;
      });
      limit.rlim_cur = limit.rlim_max;
      ::setrlimit(RLIMIT_NOFILE, &limit);
      if (worked) break;
      if (!error || error->code() != par::Errc::spawn_failed || error->os_error() != EMFILE)
        return 1;
      if (testing::count_descriptors() != before) return 2;
      ++failed;
    }
    return worked && failed >= 6 ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(no_process_holds_an_additional_descriptor_afterwards) {
  par::Reactor loop;
  auto warm = par::run(loop, say_both, captured());
  result_of_call(loop, warm, 1);
  auto plain =
      par::run(loop, [](int) { return static_cast<int>(descriptors_of(::getpid()).size()); });
  const int of_child = result_of_call(loop, plain, 1).value();
  // When the pid is known the snapshot has closed its copies of the child's descriptors.
  const auto is_known = [&](const par::Remote<int(int)>& f) {
    return testing::loop_until(loop, [&] { return f.pid() != 0; });
  };
  BOOST_TEST((is_known(warm) && is_known(plain)));
  const std::size_t before = testing::count_descriptors();
  const std::size_t of_snapshot = descriptors_of(par::default_snapshot().pid()).size();
  {
    par::Options options = captured();
    options.in = Stdio::fd(STDIN_FILENO);
    auto f = par::run(
        loop, [](int) { return static_cast<int>(descriptors_of(::getpid()).size()); }, options);
    BOOST_TEST(result_of_call(loop, f, 1).value() == of_child);
    BOOST_TEST(is_known(f));
    BOOST_TEST(descriptors_of(par::default_snapshot().pid()).size() == of_snapshot);
    auto dies = par::run(
        loop,
        [](int x) {
          ::raise(SIGKILL);
          return x;
        },
        options);
    BOOST_TEST(!result_of_call(loop, dies, 1).has_value());
  }
  BOOST_TEST(descriptors_of(par::default_snapshot().pid()).size() == of_snapshot);
  BOOST_TEST(testing::loop_until(loop, [&] { return testing::count_descriptors() == before; }));
}

// ---- environment and directory ----

BOOST_AUTO_TEST_CASE(env_is_added_to_the_environment_of_the_snapshot) {
  par::Reactor loop;
  const auto variable = [](const std::string& name) -> std::string {
    const char* value = std::getenv(name.c_str());
    return value ? value : "none";
  };
  ::setenv("EVPARALLEL_TEST", "of the parent, later", 1);
  auto plain = par::run(loop, variable);
  BOOST_TEST(result_of_call(loop, plain, "EVPARALLEL_TEST").value() == "of the snapshot");
  par::Options options;
  options.env = {{"EVPARALLEL_TEST", "=of the child="}, {"EVPARALLEL_EMPTY", ""}};
  auto f = par::run(loop, variable, options);
  BOOST_TEST(result_of_call(loop, f, "EVPARALLEL_TEST").value() == "=of the child=");
  BOOST_TEST(result_of_call(loop, f, "EVPARALLEL_EMPTY").value() == "");
  BOOST_TEST(result_of_call(loop, f, "PATH").value() == std::getenv("PATH"));
  BOOST_TEST(result_of_call(loop, plain, "EVPARALLEL_EMPTY").value() == "none");
}

BOOST_AUTO_TEST_CASE(a_child_starts_in_the_given_directory) {
  par::Reactor loop;
  const auto here = [](int) { return link_of("/proc/self/cwd"); };
  par::Options options;
  options.cwd = "/";
  auto f = par::run(loop, here, options);
  BOOST_TEST(result_of_call(loop, f, 1).value() == "/");
  auto plain = par::run(loop, here);
  BOOST_TEST(result_of_call(loop, plain, 1).value() == link_of("/proc/self/cwd"));
}

BOOST_AUTO_TEST_CASE(a_missing_directory_is_an_error_of_each_call_and_of_the_process) {
  par::Reactor loop;
  par::Options options;
  options.cwd = "/nowhere/at all";
  auto f = par::run(loop, say_both, options);
  for (int i = 0; i < 2; ++i) {
    const par::Result<int> answer = result_of_call(loop, f, 1);
    BOOST_REQUIRE(!answer.has_value());
    BOOST_TEST((answer.error().code() == par::Errc::spawn_failed));
    BOOST_TEST(answer.error().os_error() == ENOENT);
    BOOST_TEST(has(answer.error().what(), "cannot enter the directory /nowhere/at all: "));
    BOOST_TEST((answer.error().delivery() != par::Delivery::started));
  }
  options.cwd = "/dev/null";
  auto p = par::process(
      loop, [](par::Pipe<int, int> pipe) { pipe.send(1); }, options);
  std::string reported;
  int number = 0;
  p.on_message([](int) { BOOST_ERROR("the task ran"); });
  p.on_error([&](const par::Error& error) {
    reported = error.what();
    number = error.os_error();
  });
  bool ended = false;
  p.on_exit([&](const par::ExitStatus& how) { ended = how.cause == par::Cause::error; });
  loop.run();
  BOOST_TEST(has(reported, "directory /dev/null"));
  BOOST_TEST(number == ENOTDIR);
  BOOST_TEST(ended);
}
