// child.cpp - a task forked by itself, and the copy came back from the task: it went on as the child that it was
// not, answered the call a second time, and read what was sent to the other.  Output was lost: of wide streams, of a
// crash in a captured child; and where nobody reads the output, the answer was.  A thread that leaves ended by SIGABRT.
// A start hook that hung kept its child, and the calls behind it, for ever.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

namespace {

constexpr int in_copy = -1;

// Memory for reports of a task beside the library.
struct Board {
  std::atomic<bool> copy_has_left{false};
  std::atomic<int> starts{0};
  std::atomic<int> hanging_starts{0};  // so many of the next starts hang
  std::atomic<bool> ignores_term{false};
};
Board* board = nullptr;

void hang_if_wanted() {
  ++board->starts;
  if (board->hanging_starts <= 0 || board->hanging_starts.fetch_sub(1) <= 0) return;
  if (board->ignores_term) ::signal(SIGTERM, SIG_IGN);
  for (;;) ::pause();
}

// The end of the copy: its exit status, or 100 and more for a signal.
int end_of(pid_t copy) {
  int status = 0;
  ::waitpid(copy, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

int fork_and_return(int x) {
  const pid_t copy = ::fork();
  return copy == 0 ? in_copy : x + end_of(copy);
}

int fork_and_throw(int x) {
  const pid_t copy = ::fork();
  if (copy == 0) throw std::runtime_error("in the copy");
  return x + end_of(copy);
}

void fork_and_reply(int x, par::Reply<int> reply) {
  const pid_t copy = ::fork();
  reply(copy == 0 ? in_copy : x + end_of(copy));
}

// Returns into the loop of the child, from a callback there.
void fork_in_callback(int x, par::Reply<int> reply) {
  par::this_reactor().after(0ms, [x, reply] { fork_and_reply(x, reply); }).detach();
}

// All calls are sent before the first one forks: a copy would find them in the socket, or have read them already.
template <class F>
std::vector<int> answers_of(F f, int calls = 20) {
  par::Reactor loop;
  auto remote = par::run<par::RawIo, par::RawIo>(loop, f);
  std::vector<int> answers;
  for (int x = 0; x < calls; ++x)
    remote(1000 * x, [&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  std::sort(answers.begin(), answers.end());  // timers of the same moment are not ordered
  return answers;
}

std::vector<int> expected(int calls, int status) {
  std::vector<int> all;
  for (int x = 0; x < calls; ++x) all.push_back(1000 * x + status);
  return all;
}

}  // namespace

void testing_main_init() {
  board = &testing::shared<Board>();
  par::at_child_start(hang_if_wanted);
  testing::take_default_snapshot();
}

BOOST_AUTO_TEST_CASE(a_fork_that_returns_from_a_task_sends_no_answer) {
  BOOST_TEST(answers_of(fork_and_return) == expected(20, 0), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_fork_that_throws_from_a_task_sends_no_answer) {
  BOOST_TEST(answers_of(fork_and_throw) == expected(20, 70), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_fork_with_a_reply_sends_no_answer) {
  BOOST_TEST(answers_of(fork_and_reply) == expected(20, 0), boost::test_tools::per_element());
  BOOST_TEST(answers_of(fork_in_callback) == expected(20, 0), boost::test_tools::per_element());
  const auto fork_and_throw_later = [](int x, par::Reply<int> reply) { reply(fork_and_throw(x)); };
  BOOST_TEST(answers_of(fork_and_throw_later) == expected(20, 70),
             boost::test_tools::per_element());
}

// The child has a loop, which runs while it waits for calls.
BOOST_AUTO_TEST_CASE(a_fork_between_two_calls_sends_no_answer) {
  static int forked = 0;
  static int ended = 0;
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(loop, [](int x) {
    if (x == 0) {
      par::this_reactor()
          .after(0ms,
                 [] {
                   const pid_t copy = ::fork();
                   if (copy == 0) return;
                   ended = end_of(copy);
                   ++forked;
                 })
          .detach();
    }
    return x == 0 ? 0 : 1000 * forked + ended;
  });
  int last = 0;
  f(0, [](par::Result<int> r) { r.value(); });
  loop.run();
  while (last == 0) {
    f(1, [&](par::Result<int> r) { last = r.value(); });
    loop.run();
  }
  BOOST_TEST(last == 1000);
}

// Only the child writes answers that were gathered and not yet written.
BOOST_AUTO_TEST_CASE(short_calls_before_a_fork_are_answered_once) {
  const auto task = [](int x) { return x % 100 == 99 ? fork_and_return(x) : x; };
  std::vector<int> all;
  for (int x = 0; x < 500; ++x) all.push_back(x);
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(loop, task);
  std::vector<int> answers;
  for (const int x : all) f(x, [&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  BOOST_TEST(answers == all, boost::test_tools::per_element());
}

// The copy has returned, and the child is still in its call: a cancel concerns the child.
BOOST_AUTO_TEST_CASE(a_call_continues_after_its_fork_has_returned) {
  par::Options options;
  options.grace = 0ms;
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(
      loop,
      [](int x) {
        if (x != 0) return x;
        if (fork_and_return(0) == in_copy) return in_copy;
        board->copy_has_left = true;
        for (;;) ::pause();
      },
      options);
  std::vector<std::string> received;
  const auto receive = [&](par::Result<int> r) {
    received.push_back(r ? std::to_string(*r) : par::to_string(r.error().code()));
  };
  par::Call first = f(0, receive);
  f(7, receive);
  while (!board->copy_has_left) loop.run_for(1ms);
  first.cancel();
  loop.run();
  BOOST_TEST(received == (std::vector<std::string>{"cancelled", "7"}),
             boost::test_tools::per_element());
}

namespace {

// A copy returns from a callback.
void echo(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int x) {
    const pid_t copy = ::fork();
    if (copy == 0) {
      pipe.send(in_copy);
      return;
    }
    pipe.send(x + end_of(copy));
  });
}

// A copy returns from the task itself.
void fork_and_echo(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int x) { pipe.send(x); });
  pipe.on_end([pipe] { pipe.close(); });
  const pid_t copy = ::fork();
  if (copy == 0) {
    pipe.send(in_copy);
    pipe.close();
    return;
  }
  pipe.send(end_of(copy));
}

std::string events_of(void (*task)(par::Pipe<int, int>)) {
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(loop, task);
  std::string events;
  p.on_message([&](int x) { events += std::to_string(x) + " "; });
  p.on_error([&](const par::Error& e) { events += std::string(e.what()) + " "; });
  p.on_end([&] { events += "end "; });
  p.on_exit([&](const par::ExitStatus& s) { events += par::to_string(s.cause); });
  for (int x = 1; x <= 5; ++x) p.send(1000 * x);
  p.close();
  loop.run();
  return events;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_fork_of_a_process_task_does_not_use_its_pipe) {
  BOOST_TEST(events_of(echo) == "1000 2000 3000 4000 5000 end normal");
  BOOST_TEST(events_of(fork_and_echo) == "0 1000 2000 3000 4000 5000 end normal");
}

// ---- output ----

namespace {

using Strings = std::vector<std::string>;

// Captures the streams; their lines go to `lines`.
par::Options captured(Strings& lines) {
  par::Options options;
  options.out = par::Stdio::capture();
  options.err = par::Stdio::capture();
  options.on_line = [&lines](const par::OutputLine& line) { lines.emplace_back(line.text); };
  return options;
}

bool all_of(const Strings& lines, const Strings& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const std::string& one) {
    return std::find(lines.begin(), lines.end(), one) != lines.end();
  });
}

}  // namespace

// The task unsynchronises the streams from stdio: each has a buffer of its own then.
BOOST_AUTO_TEST_CASE(wide_output_of_a_task_is_written_before_its_answer) {
  Strings lines;
  par::Reactor loop;
  auto f = par::run(
      loop,
      [](int x) {
        std::ios_base::sync_with_stdio(false);
        std::cout << "cout\n";
        std::clog << "clog\n";
        std::wcout << L"wcout\n";
        std::wcerr << L"wcerr\n";
        std::wclog << L"wclog\n";
        return x;
      },
      captured(lines));
  bool answered = false;
  f(1, [&](par::Result<int> r) {
    answered = r.value() == 1;
    BOOST_TEST(all_of(lines, {"cout", "clog", "wcout", "wcerr", "wclog"}));
  });
  loop.run();
  BOOST_TEST(answered);
}

// The same at the end of a process that sends nothing.
BOOST_AUTO_TEST_CASE(wide_output_of_a_process_is_written_before_its_end) {
  Strings lines;
  par::Reactor loop;
  auto p = par::process(
      loop,
      [](par::Pipe<int, int>) {
        std::ios_base::sync_with_stdio(false);
        std::wcout << L"wcout";
        std::wclog << L"wclog";
      },
      captured(lines));
  p.on_exit([&](const par::ExitStatus&) { BOOST_TEST(all_of(lines, {"wcout", "wclog"})); });
  p.close();
  loop.run();
  BOOST_TEST(lines.size() == 2u);
}

namespace {

// In a program whose streams are not synchronised with stdio.
int crash_in_a_captured_child() {
  std::ios_base::sync_with_stdio(false);
  Strings lines;
  par::Snapshot snapshot;
  par::Options options = captured(lines);
  options.snapshot = &snapshot;
  par::Reactor loop;
  auto f = par::run(
      loop,
      [](bool narrow) {
        if (narrow) {
          std::cout << "out " << 1 << '\n';
          std::clog << "err " << 2 << '\n';
        } else {
          std::wcout << L"out " << 1 << L'\n';
          std::wclog << L"err " << 2 << L'\n';
        }
        std::abort();
        return 0;
      },
      options);
  int found = 0;
  for (const bool narrow : {true, false}) {
    f(narrow, [&](par::Result<int> r) { found += r.error().last_words() == "err 2"; });
    loop.run();
    found += all_of(lines, {"out 1", "err 2"});
    lines.clear();
  }
  return found;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_crash_leaves_no_output_in_a_buffer_of_a_captured_child) {
  BOOST_TEST(testing::elsewhere(crash_in_a_captured_child) == 4);
}

namespace {

// In a program without a reader for its output, which handles that case.
int answer_without_a_reader() {
  int ends[2];
  if (::pipe(ends) != 0 || ::dup2(ends[1], STDOUT_FILENO) != STDOUT_FILENO) return 50;
  ::close(ends[0]);
  ::close(ends[1]);
  ::signal(SIGPIPE, SIG_IGN);
  Strings lines;
  par::Snapshot snapshot;
  par::Options options;
  options.snapshot = &snapshot;
  options.err = par::Stdio::capture();
  options.on_line = [&lines](const par::OutputLine& line) { lines.emplace_back(line.text); };
  par::Reactor loop;
  int answers = 0;
  const auto count = [&](par::Result<int> r) { answers += r ? *r : 0; };
  auto f = par::run(
      loop,
      [](int x) {
        std::puts("hello");
        return x;
      },
      options);
  auto later = par::run(
      loop,
      [](int x, par::Reply<int> reply) {
        std::ios_base::sync_with_stdio(false);
        std::cout << "hello";
        std::wcout << L"hello";
        reply(x);
      },
      options);
  for (int i = 0; i < 3; ++i) {
    f(1, count);
    later(10, count);
  }
  loop.run();
  const auto said = std::count_if(lines.begin(), lines.end(), [](const std::string& line) {
    return testing::has(line, "is lost: Broken pipe");
  });
  return said == 2 ? answers : 100;
}

// A write of the task itself to such a stream ends it, as in any program that does not ignore the signal.
int write_without_a_reader() {
  int ends[2];
  if (::pipe(ends) != 0 || ::dup2(ends[1], STDOUT_FILENO) != STDOUT_FILENO) return 50;
  ::close(ends[0]);
  ::close(ends[1]);
  par::Snapshot snapshot;
  par::Options options;
  options.snapshot = &snapshot;
  par::Reactor loop;
  auto f = par::run(
      loop,
      [](int x) {
        std::puts("hello");
        std::fflush(stdout);
        return x;
      },
      options);
  int signal = 0;
  f(1, [&](par::Result<int> r) { signal = r ? 0 : r.error().exit()->signal(); });
  loop.run();
  return signal;
}

}  // namespace

BOOST_AUTO_TEST_CASE(an_answer_arrives_even_if_nobody_reads_the_output) {
  BOOST_TEST(testing::elsewhere(answer_without_a_reader) == 33);
  BOOST_TEST(testing::elsewhere(write_without_a_reader) == SIGPIPE);
}

// ---- a thread that exits ----

namespace {

void leave_by_exit() {
  ::pthread_exit(nullptr);
}
void leave_cancelled() {
  ::pthread_cancel(::pthread_self());
  ::pthread_testcancel();
}

// A call that exits its thread, and a call behind it.
template <class F>
void check_leaving(F f) {
  par::Reactor loop;
  auto remote = par::run(loop, f);
  Strings received;
  const auto receive = [&](par::Result<int> r) {
    received.push_back(r ? std::to_string(*r) : "error");
    if (!r) BOOST_TEST((r.error().exit() && r.error().exit()->cause == par::Cause::normal));
  };
  remote(0, receive);
  loop.run();
  remote(7, receive);
  loop.run();
  BOOST_REQUIRE(received.size() == 2u);
  BOOST_TEST(received[0] == "error");
  BOOST_TEST(received[1] == "7");
}

template <class F>
void check_leaving_process(F f) {
  Strings lines;
  par::Reactor loop;
  auto p = par::process(loop, f, captured(lines));
  Strings events;
  p.on_error([&](const par::Error& e) { events.emplace_back(par::to_string(e.code())); });
  p.on_exit([&](const par::ExitStatus& s) { events.emplace_back(par::to_string(s.cause)); });
  p.send(1);
  loop.run();
  BOOST_REQUIRE(events.size() == 2u);
  BOOST_TEST(events[0] == "child_exited");
  BOOST_TEST(events[1] == "normal");
  BOOST_TEST((lines == Strings{"hook"}));  // the child has ended by itself
}

void print_at_the_end() {
  par::at_child_exit([] { std::puts("hook"); });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_task_that_exits_its_thread_ends_its_child_like_exit) {
  check_leaving([](int x) {
    if (x == 0) leave_by_exit();
    return x;
  });
  check_leaving([](int x) {
    if (x == 0) leave_cancelled();
    return x;
  });
}

// The thread's exit destroys the Reply, unless the task keeps it elsewhere.
BOOST_AUTO_TEST_CASE(a_task_with_a_reply_that_exits_its_thread_ends_its_child_like_exit) {
  check_leaving([](int x, par::Reply<int> reply) {
    static auto* kept = new std::vector<par::Reply<int>>;  // exit() must not destroy it
    kept->push_back(reply);
    if (x == 0) leave_by_exit();
    reply(x);
  });
}

BOOST_AUTO_TEST_CASE(a_process_task_or_callback_that_exits_its_thread_ends_its_child_like_exit) {
  check_leaving_process([](par::Pipe<int, int>) {
    print_at_the_end();
    leave_by_exit();
  });
  check_leaving_process([](par::Pipe<int, int> pipe) {
    print_at_the_end();
    pipe.on_message([](int) { leave_by_exit(); });
  });
  check_leaving_process([](par::Pipe<int, int>) {
    print_at_the_end();
    par::at_child_exit(leave_by_exit);
    std::exit(0);
  });
}

BOOST_AUTO_TEST_CASE(a_pool_child_whose_task_exits_its_thread_is_replaced) {
  par::PoolOptions options;
  options.workers = 1;
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x == 0) leave_by_exit();
        return x;
      },
      options);
  Strings received;
  const auto receive = [&](par::Result<int> r) {
    received.push_back(r ? std::to_string(*r) : par::to_string(r.error().code()));
  };
  for (int x : {0, 7}) pool.submit(x, receive);
  loop.run();
  BOOST_TEST((received == Strings{"child_exited", "7"}));
  received.clear();
  pool.map(
      std::vector<int>{1, 0, 2}, [&](std::size_t, par::Result<int> r) { receive(r); },
      [](const par::MapSummary&) {});
  loop.run();
  BOOST_TEST((received == Strings{"1", "child_exited", "2"}));
}

// ---- another program ----

namespace {

struct Executed {
  Strings events{};
  Strings lines{};
};

// A shell replaces the task, and ends when it has read a line.  The time limit for an ending child does not apply to
// it.
template <class F>
Executed executed(F before_exec) {
  int ends[2];
  BOOST_REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  Executed seen;
  par::Options options = captured(seen.lines);
  options.in = par::Stdio::fd(ends[0]);
  options.linger = options.grace = 0ms;
  par::Reactor loop;
  auto p = par::process(
      loop,
      [before_exec](par::Pipe<int, int> pipe) {
        pipe.send(1);
        std::fputs("printed by the task", stdout);
        before_exec();
        ::execl("/bin/sh", "sh", "-c", "read line; echo; echo $line; exit 3", nullptr);
        ::_exit(9);
      },
      options);
  ::close(ends[0]);
  p.on_message([&](int x) { seen.events.push_back(std::to_string(x)); });
  p.on_error([&](const par::Error& e) { seen.events.emplace_back(par::to_string(e.code())); });
  p.on_end([&] {
    seen.events.push_back("end");
    p.close();
    // Long after the end of the socket was noticed.
    loop.after(50ms, [&] { BOOST_TEST(::write(ends[1], "line\n", 5) == 5); }).detach();
  });
  p.on_exit([&](const par::ExitStatus& s) {
    seen.events.push_back(s.exited() ? std::to_string(s.code()) : par::to_string(s.cause));
  });
  loop.run();
  ::close(ends[1]);
  return seen;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_task_that_calls_will_exec_continues_as_another_program) {
  const Executed seen = executed([] { par::this_child::will_exec(); });
  BOOST_TEST((seen.events == Strings{"1", "end", "3"}));
  BOOST_TEST((seen.lines == Strings{"printed by the task", "line"}));
}

BOOST_AUTO_TEST_CASE(a_task_that_executes_without_will_exec_is_terminated) {
  const Executed seen = executed([] {});
  BOOST_REQUIRE(!seen.events.empty());
  BOOST_TEST(seen.events.back() == "terminated");
}

BOOST_AUTO_TEST_CASE(only_the_task_of_a_process_may_call_will_exec) {
  BOOST_CHECK_THROW(par::this_child::will_exec(), std::logic_error);
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    par::this_child::will_exec();
    return x;
  });
  std::string type;
  f(1, [&](par::Result<int> r) { type = r.error().remote_type(); });
  loop.run();
  BOOST_TEST(type == "std::logic_error");
}

// ---- starts that hang ----

namespace {

int plus_one(int x) {
  return x + 1;
}

// The next starts hang.
par::Options hanging(int starts, std::chrono::milliseconds start_timeout) {
  board->starts = 0;
  board->hanging_starts = starts;
  board->ignores_term = false;
  par::Options options;
  options.start_timeout = start_timeout;
  options.grace = 20ms;
  return options;
}

// How a process ends whose start hangs.
std::optional<par::ExitStatus> end_of_process(const par::Options& options) {
  par::Reactor loop;
  auto p = par::process(
      loop, [](par::Pipe<int, int> pipe) { pipe.close(); }, options);
  std::optional<par::ExitStatus> end;
  p.on_error([](const par::Error&) {});
  p.on_exit([&](const par::ExitStatus& status) { end = status; });
  loop.run();
  return end;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_process_that_hangs_at_its_start_is_ended) {
  const auto end = end_of_process(hanging(1, 50ms));
  BOOST_REQUIRE(end.has_value());
  BOOST_TEST((end->cause == par::Cause::start_timeout));
  BOOST_TEST(end->signal() == SIGTERM);
  BOOST_TEST(testing::has(end->describe(), "its start took longer than Options::start_timeout"));
  BOOST_TEST(par::to_string(end->cause) == std::string("start_timeout"));
}

BOOST_AUTO_TEST_CASE(a_start_that_ignores_sigterm_is_killed_after_the_grace) {
  const par::Options options = hanging(1, 50ms);
  board->ignores_term = true;
  const auto end = end_of_process(options);
  BOOST_REQUIRE(end.has_value());
  BOOST_TEST((end->cause == par::Cause::start_timeout));
  BOOST_TEST(end->signal() == SIGKILL);
}

BOOST_AUTO_TEST_CASE(a_spare_child_that_hangs_at_its_start_is_ended) {
  par::SnapshotOptions with_spares;
  with_spares.spares = 1;
  par::Snapshot snapshot(with_spares);
  par::Options options = hanging(1, 50ms);
  options.snapshot = &snapshot;
  const auto end = end_of_process(options);
  BOOST_REQUIRE(end.has_value());
  BOOST_TEST((end->cause == par::Cause::start_timeout));
}

BOOST_AUTO_TEST_CASE(a_call_behind_a_hanging_start_fails_and_the_next_one_does_not) {
  par::Reactor loop;
  auto f = par::run(loop, plus_one, hanging(1, 3s));
  std::optional<par::Error> error;
  f(1, [&](par::Result<int> r) {
    if (!r) error = r.error();
  });
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::child_killed));
  BOOST_TEST((error->delivery() == par::Delivery::sent));
  BOOST_REQUIRE(error->exit().has_value());
  BOOST_TEST((error->exit()->cause == par::Cause::start_timeout));
  int answer = 0;
  f(1, [&](par::Result<int> r) { answer = r.value_or(-1); });
  loop.run();
  BOOST_TEST(answer == 2);
}

BOOST_AUTO_TEST_CASE(a_call_behind_a_hanging_start_is_repeated) {
  par::Options options = hanging(2, 3s);
  options.retries = 2;
  par::Reactor loop;
  auto f = par::run(loop, plus_one, options);
  int answer = 0;
  f(1, [&](par::Result<int> r) { answer = r.value_or(-1); });
  loop.run();
  BOOST_TEST(answer == 2);
  BOOST_TEST(board->starts == 3);
}

namespace {

// Two calls wait for a child that hangs; the first one is given up, and the second one is answered.
template <class F>
void second_call_is_answered(par::Errc expected, F give_up) {
  par::Reactor loop;
  auto f = par::run(loop, plus_one, hanging(1, 0ms));
  std::optional<par::Errc> first;
  int second = 0;
  par::Call call = f(1, [&](par::Result<int> r) {
    if (!r) first = r.error().code();
  });
  f(2, [&](par::Result<int> r) { second = r.value_or(-1); });
  BOOST_TEST(testing::loop_until(loop, [] { return board->hanging_starts.load() == 0; }));
  give_up(call);
  loop.run();
  BOOST_TEST((first == expected));
  BOOST_TEST(second == 3);
  BOOST_TEST(board->starts == 2);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_deadline_ends_a_child_that_hangs_at_its_start) {
  second_call_is_answered(par::Errc::deadline, [](par::Call& call) { call.set_deadline(10ms); });
}

BOOST_AUTO_TEST_CASE(a_cancelled_call_ends_a_child_that_hangs_at_its_start) {
  second_call_is_answered(par::Errc::cancelled, [](par::Call& call) { call.cancel(); });
}

// The program has run no loop meanwhile, so that the child had no task.
BOOST_AUTO_TEST_CASE(a_child_whose_task_comes_late_has_the_whole_time_for_its_start) {
  const auto time = 3s;
  par::Reactor loop;
  auto f = par::run(loop, plus_one, hanging(0, time));
  const auto late = std::chrono::steady_clock::now() + time + 100ms;
  BOOST_TEST(testing::eventually([&] { return std::chrono::steady_clock::now() > late; }));
  int answer = 0;
  f(1, [&](par::Result<int> r) { answer = r.value_or(-1); });
  loop.run();
  BOOST_TEST(answer == 2);
  BOOST_TEST(board->starts == 1);
}

BOOST_AUTO_TEST_CASE(a_child_that_has_started_is_not_ended_by_the_start_timeout) {
  par::Reactor loop;
  auto f = par::run(loop, plus_one, hanging(0, 3s));
  const auto ask = [&] {
    int answer = 0;
    f(1, [&](par::Result<int> r) { answer = r.value_or(-1); });
    loop.run();
    return answer;
  };
  BOOST_TEST(ask() == 2);
  const int starts = board->starts;
  loop.run_for(3500ms);
  BOOST_TEST(ask() == 2);
  BOOST_TEST(board->starts == starts);
}
