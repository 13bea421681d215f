// pipe.cpp - ends of pipes.  A pipe whose last handle was in a callback of its own was destroyed in the middle of its
// end, when the reactor was destroyed: AddressSanitizer detects it, --enable-audit.  A program that never closed its
// own direction waited for ever, the stream of a child was cut without an error, and an error was reported after the
// end or not at all.
#include "calling.hpp"
#include "errors.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;
using Strings = std::vector<std::string>;

namespace {

template <class Process>
void note_end(Process& process, Strings& events) {
  process.on_exit([&](const par::ExitStatus& status) {
    events.push_back("exit " + std::to_string(status.code()));
  });
}

template <class Process>
void note_error(Process& process, Strings& events) {
  process.on_error([&](const par::Error& error) {
    events.push_back(std::string("error ") + par::to_string(error.code()));
  });
}

// More than a socket holds.
constexpr std::size_t large = std::size_t{8} << 20;

void send_large(const par::Pipe<int, std::string>& pipe) {
  pipe.send(std::string(large, 'x'));
}

// All events of a process whose task is `f`, in order; of a message its size.
template <class F>
Strings events_of(F f) {
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(loop, f);
  Strings events;
  p.on_message([&](const std::string& text) { events.push_back(std::to_string(text.size())); });
  p.on_end([&] {
    events.push_back("end");
    p.close();
  });
  note_error(p, events);
  note_end(p, events);
  loop.run();
  return events;
}

}  // namespace

void testing_main_init() {
  testing::take_default_snapshot();
}

BOOST_AUTO_TEST_CASE(the_last_handle_may_be_destroyed_with_its_callback) {
  const auto token = std::make_shared<int>(0);
  {
    par::Reactor loop;
    auto child = par::process(loop, [](par::Pipe<int, int>) {});
    const par::Pipe<int, int> handle = child;
    handle.on_message([handle, token](int) {});
    handle.on_end([handle, token] {});
    handle.on_error([handle, token](const par::Error&) {});
    handle.on_drain([handle, token] {});
    child.detach();
    loop.after(std::chrono::milliseconds(0), [&] { loop.stop(); }).detach();
    loop.run();  // an action that was deferred at the start holds a handle, too
  }
  BOOST_TEST(token.use_count() == 1);
}

// ---- the end of the other side closes this direction ----

// As in a program of lwt-parallel: the children send their messages and close, and the program waits for all of them.
BOOST_AUTO_TEST_CASE(a_program_without_close_ends_when_its_children_have_closed) {
  testing::limit(300);
  par::Reactor loop;
  std::vector<par::Process<int, int>> all;
  int sum = 0;
  int normal = 0;
  for (int i = 0; i < 64; ++i) {
    all.push_back(par::process(loop, [](par::Pipe<int, int> pipe) {
      pipe.on_message([pipe](int x) {
        for (int k = 0; k < 10; ++k) pipe.send(x);
        pipe.close();
      });
    }));
    par::Process<int, int>& p = all.back();
    p.on_message([&](int x) { sum += x; });
    p.on_exit([&](const par::ExitStatus& s) { normal += s.cause == par::Cause::normal; });
    p.send(i);
  }
  loop.run();
  BOOST_TEST(sum == 10 * 64 * 63 / 2);
  BOOST_TEST(normal == 64);
}

BOOST_AUTO_TEST_CASE(a_process_that_is_detached_or_has_no_callbacks_is_closed_automatically) {
  par::Reactor loop;
  auto silent = par::process(loop, [](par::Pipe<int, int> pipe) { pipe.close(); });
  Strings events;
  auto detached = par::process(loop, [](par::Pipe<int, int> pipe) {
    pipe.send(1);
    pipe.close();
  });
  detached.on_message([&](int x) { events.push_back(std::to_string(x)); });
  note_end(detached, events);
  detached.detach();
  loop.run();
  BOOST_TEST(silent.closed());
  BOOST_TEST((events == Strings{"1", "exit 0"}));
}

// A handler set by on_end, even one without effect, keeps this direction open; a handler set by on_drain shows that a
// stream is under way.
BOOST_AUTO_TEST_CASE(a_process_with_on_end_or_on_drain_is_not_closed_automatically) {
  const auto count = [](par::Pipe<int, int> pipe) {
    pipe.close();
    auto sum = std::make_shared<int>(0);
    pipe.on_message([sum](int x) { *sum += x; });
    pipe.on_end([sum] { std::exit(*sum); });
  };
  for (const bool by_drain : {false, true}) {
    par::Reactor loop;
    auto p = par::process(loop, count);
    Strings events;
    note_error(p, events);
    note_end(p, events);
    if (by_drain)
      p.on_drain([] {});
    else
      p.on_end([] {});
    loop.run_for(200ms);  // the end of the other side comes within this time
    BOOST_TEST(!p.closed());
    for (int x : {3, 4}) p.send(x);
    p.close();
    loop.run();
    BOOST_TEST((events == Strings{"exit 7"}));
  }
}

// All queued messages are written first: this side was above its high-water mark.
BOOST_AUTO_TEST_CASE(an_automatic_close_comes_after_queued_messages) {
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(loop, [](par::Pipe<std::string, int> pipe) {
    pipe.close();
    auto sum = std::make_shared<std::size_t>(0);
    pipe.on_message([sum](const std::string& text) { *sum += text.size(); });
    pipe.on_end([sum] { std::exit(*sum == 4 * large ? 4 : 1); });
  });
  Strings events;
  note_error(p, events);
  note_end(p, events);
  bool below = true;
  for (int i = 0; i < 4; ++i) below = p.send(std::string(large, 'y'));
  BOOST_TEST(!below);
  loop.run();
  BOOST_TEST((events == Strings{"exit 4"}));
}

namespace {

// The task has ended its direction, as the parent sees it, and still receives messages.
void close_and_take(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int) { pipe.close(); });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_late_send_is_reported_once) {
  par::Reactor loop;
  auto p = par::process(loop, close_and_take);
  Strings events;
  note_end(p, events);
  p.send(0);
  p.pause();
  while (p.pid() == 0) loop.run_for(1ms);
  note_error(p, events);  // set late
  p.resume();
  par::Timer timer = loop.every(1ms, [&] {
    if (!p.closed()) return;
    for (int i = 0; i < 3; ++i) BOOST_TEST(p.send(i));  // neither misuse nor a reason to wait
  });
  const par::Timer stop = loop.every(1ms, [&] {
    if (!events.empty() && events.back() == "exit 0") timer = {};
    if (!events.empty() && events.back() == "exit 0") loop.stop();
  });
  loop.run();
  BOOST_REQUIRE(!events.empty());
  BOOST_TEST(events.back() == "exit 0");
  BOOST_TEST(events.size() <= 2u);  // if the child had already ended, only on_exit reported it
  if (events.size() == 2) BOOST_TEST(events[0] == "error closed");
}

// The child is alive, and its end has certainly arrived when the message is sent.
BOOST_AUTO_TEST_CASE(a_late_send_is_reported_to_on_error_while_the_child_lives) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    pipe.close();
    pipe.on_end([] {});  // waits in its loop for a signal
    par::this_reactor().every(1h, [] {}).detach();
    pipe.pause();  // does not see the parent's end
  });
  Strings events;
  note_error(p, events);
  p.on_exit([&](const par::ExitStatus&) { events.push_back("exit"); });
  const par::Timer timer = loop.every(1ms, [&] {
    if (!p.closed()) return;
    if (events.empty())
      p.send(1);
    else
      p.kill(SIGKILL);
    if (events.size() == 2) loop.stop();
  });
  loop.run();
  BOOST_TEST((events == Strings{"error closed", "exit"}));
}

BOOST_AUTO_TEST_CASE(a_late_send_without_on_error_is_thrown_out_of_run) {
  for (const bool while_it_lives : {true, false}) {
    par::Reactor loop;
    auto p = par::process(loop, close_and_take);
    bool over = false;
    p.on_exit([&](const par::ExitStatus&) { over = true; });
    p.send(0);
    while (while_it_lives ? !p.closed() : !over) loop.run_for(1ms);
    BOOST_TEST(p.send(1));
    const auto error = testing::error_of([&] { loop.run(); });
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::closed));
    BOOST_TEST(p.send(2));  // reported once
    loop.run();
    BOOST_TEST(over);
  }
}

// The parent's message and the child's end cross: the child reads the message.
BOOST_AUTO_TEST_CASE(an_end_that_crosses_a_message_loses_none) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    auto sum = std::make_shared<int>(0);
    pipe.on_message([sum](int x) { *sum += x; });
    par::at_child_exit([sum] { std::exit(*sum); });
    pipe.close();
  });
  Strings events;
  note_error(p, events);
  note_end(p, events);
  p.pause();
  int sent = 0;
  const par::Timer timer = loop.every(1ms, [&] {
    if (sent < 20)
      p.send(1), ++sent;
    else
      p.resume();
    if (!events.empty()) loop.stop();
  });
  loop.run();
  BOOST_TEST((events == Strings{"exit 20"}));
}

BOOST_AUTO_TEST_CASE(send_after_an_automatic_close_is_misuse) {
  par::Reactor loop;
  auto p = par::process(loop, close_and_take);
  p.send(0);
  while (!p.closed()) loop.run_for(1ms);
  p.close();  // nothing is left to close
  BOOST_CHECK_THROW(p.send(1), std::logic_error);
  loop.run();
}

BOOST_AUTO_TEST_CASE(a_paused_pipe_sees_no_end) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    pipe.close();
    pipe.on_message([](int x) { std::exit(x); });
  });
  Strings events;
  note_error(p, events);
  note_end(p, events);
  p.pause();
  loop.run_for(100ms);  // the end of the other side comes within this time
  BOOST_TEST(!p.closed());
  p.send(9);
  p.resume();
  loop.run();
  BOOST_TEST((events == Strings{"exit 9"}));
}

// ---- the same in the child ----

// The stream continues by on_drain after the parent has closed: nothing is lost.
BOOST_AUTO_TEST_CASE(a_stream_of_a_child_with_on_drain_is_not_cut) {
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(loop, [](par::Pipe<int, std::string> pipe) {
    auto left = std::make_shared<int>(100);
    const auto write = [pipe, left] {
      while (*left > 0) {
        --*left;
        if (!pipe.send(std::string(100000, 'x'))) return;
      }
      pipe.close();
    };
    pipe.on_drain(write);
    write();
  });
  p.close();
  int messages = 0;
  Strings events;
  p.on_message([&](const std::string&) { ++messages; });
  p.on_end([&] { events.push_back("end"); });
  note_error(p, events);
  note_end(p, events);
  loop.run();
  BOOST_TEST(messages == 100);
  BOOST_TEST((events == Strings{"end", "exit 0"}));
}

namespace {

// Messages are sent by a timer, and the parent's end comes in between: the pipe is paused until then.  The child itself
// stays alive, since its first messages cannot be written.
template <class F>
Strings events_of_timer(F set) {
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(loop, [set](par::Pipe<int, std::string> pipe) {
    set(pipe);
    send_large(pipe);
    par::this_reactor().every(1ms, [pipe] { pipe.send("late"); }).detach();
  });
  Strings events;
  std::size_t late = 0;
  p.on_message([&](const std::string& text) {
    if (text == "late")
      ++late;
    else
      events.push_back(std::to_string(text.size()));
  });
  p.on_end([&] { events.push_back("end"); });
  note_error(p, events);
  note_end(p, events);
  p.close();
  p.pause();
  loop.run_for(300ms);
  p.resume();
  loop.run();
  return events;
}

}  // namespace

// If the parent reads late, the child has sent after the parent's end: the child gets the error, and without an
// on_error handler the error ends it.
BOOST_AUTO_TEST_CASE(a_send_of_a_child_after_the_end_of_the_parent_is_reported) {
  const Strings unreported = events_of_timer([](par::Pipe<int, std::string>) {});
  BOOST_REQUIRE(unreported.size() >= 2u);
  BOOST_TEST(unreported[0] == std::to_string(large));
  BOOST_TEST(unreported[1] == "end");
  BOOST_TEST((unreported.back() == "exit 70" || unreported.back() == "exit 0"));
  const Strings received = events_of_timer([](par::Pipe<int, std::string> pipe) {
    pipe.on_error(
        [](const par::Error& error) { std::exit(error.code() == par::Errc::closed ? 3 : 4); });
  });
  BOOST_TEST((received.back() == "exit 3" || received.back() == "exit 0"));
}

// ---- an error takes the place of the end ----

BOOST_AUTO_TEST_CASE(a_task_that_closes_and_throws_is_an_error) {
  const Strings expected{std::to_string(large), "error remote_exception", "end", "exit 70"};
  for (int i = 0; i < 10; ++i) {
    BOOST_TEST(events_of([](par::Pipe<int, std::string> pipe) {
                 send_large(pipe);
                 pipe.close();
                 throw std::runtime_error("too late");
               }) == expected,
               boost::test_tools::per_element());
    BOOST_TEST(events_of([](par::Pipe<int, std::string> pipe) {
                 par::this_reactor()
                     .after(0ms,
                            [pipe] {
                              send_large(pipe);
                              pipe.close();
                              throw std::runtime_error("too late");
                            })
                     .detach();
               }) == expected,
               boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(a_task_whose_exit_hook_fails_is_an_error) {
  const Strings expected{std::to_string(large), "error remote_exception", "end", "exit 70"};
  for (int i = 0; i < 10; ++i)
    BOOST_TEST(events_of([](par::Pipe<int, std::string> pipe) {
                 par::at_child_exit([] { throw std::runtime_error("in the hook"); });
                 send_large(pipe);
                 pipe.close();
                 std::exit(0);
               }) == expected,
               boost::test_tools::per_element());
}

// The other side knows of the end by then, and gets no error after it.
BOOST_AUTO_TEST_CASE(an_error_after_the_end_is_reported_by_the_exit_status) {
  const Strings expected{"end", "exit 70"};
  BOOST_TEST(events_of([](par::Pipe<int, std::string> pipe) {
               par::at_child_exit([] { throw std::runtime_error("in the hook"); });
               pipe.close();
             }) == expected,
             boost::test_tools::per_element());
  BOOST_TEST(events_of([](par::Pipe<int, std::string> pipe) {
               pipe.on_end([] { throw std::runtime_error("in the end"); });
               pipe.close();
             }) == expected,
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_task_that_closes_and_exits_ends_its_pipe) {
  for (const int status : {0, 3}) {
    const Strings expected{std::to_string(large), "end", "exit " + std::to_string(status)};
    BOOST_TEST(events_of([status](par::Pipe<int, std::string> pipe) {
                 send_large(pipe);
                 pipe.close();
                 std::exit(status);
               }) == expected,
               boost::test_tools::per_element());
  }
  const Strings unclosed{"5", "error child_exited", "end", "exit 3"};
  BOOST_TEST(events_of([](par::Pipe<int, std::string> pipe) {
               pipe.send("hello");
               std::exit(3);
             }) == unclosed,
             boost::test_tools::per_element());
}

// It runs its loop itself: the end is sent then, since the parent may wait for it before it closes its own direction.
BOOST_AUTO_TEST_CASE(a_task_that_runs_its_own_loop_sends_its_close_first) {
  const Strings expected{"end", "exit 0"};
  BOOST_TEST(events_of([](par::Pipe<int, std::string> pipe) {
               bool ended = false;
               pipe.on_end([&ended] { ended = true; });
               pipe.close();
               const par::Timer tick = par::this_reactor().every(1ms, [] {});  // holds the loop
               while (!ended) par::this_reactor().run_for(10ms);
               pipe.on_end(nullptr);
             }) == expected,
             boost::test_tools::per_element());
}

// ---- a child that dies in the middle of its answer ----

namespace {

// The second message of the child is sent up to byte `at`.
void tear_second(std::size_t at) {
  par::fault::Plan plan;
  plan.cut_message = 2;
  plan.cut_to = at;
  par::fault::arm(plan);
}

Strings answers_of_torn(std::size_t at, const par::Options& options) {
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(
      loop,
      [at](int x) {
        if (x == 0) tear_second(at);
        return x;
      },
      options);
  Strings received;
  for (int i = 0; i < 3; ++i)
    f(i, [&](par::Result<int> r) {
      received.push_back(r ? "value" : par::to_string(r.error().code()));
      if (!r) BOOST_TEST((r.error().exit() && r.error().exit()->signalled()));
    });
  loop.run();
  return received;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_torn_answer_is_a_bad_message_for_its_own_call_only) {
  for (std::size_t at = 0; at < 20; ++at) {
    const Strings expected{"value", at == 0 ? "child_killed" : "bad_message", "child_killed"};
    BOOST_TEST(answers_of_torn(at, {}) == expected, boost::test_tools::per_element());
  }
}

// A stopped snapshot does not report the end of its child, and is then lost.
BOOST_AUTO_TEST_CASE(a_torn_answer_of_a_lost_snapshot_is_reported_as_a_lost_snapshot) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto f = par::run<par::RawIo, par::RawIo>(
      loop,
      [](int x) {
        if (x > 0) return x;
        ::kill(::getppid(), SIGSTOP);
        if (!testing::eventually([] { return testing::state_of(::getppid()) == 'T'; })) return -1;
        tear_second(18);
        return x;
      },
      options);
  Strings received;
  for (int i = 0; i < 2; ++i)
    f(i, [&](par::Result<int> r) {
      received.push_back(r ? std::to_string(*r) : par::to_string(r.error().code()));
      if (!r) loop.stop();
    });
  // Checked in /proc: the snapshot may be stopped before it has reported the child.
  const par::Timer look = loop.every(1ms, [&] {
    for (const pid_t child : testing::children_of(snapshot.pid()))
      if (testing::state_of(child) == 'Z') ::kill(snapshot.pid(), SIGKILL);
  });
  loop.run();
  BOOST_TEST(received == (Strings{"0", "snapshot_lost"}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_repeatable_call_is_repeated_after_a_torn_answer) {
  par::Options options;
  options.retries = 1;
  options.idempotent = true;
  BOOST_TEST((answers_of_torn(18, options) == Strings{"value", "value", "value"}));
}

BOOST_AUTO_TEST_CASE(a_pool_repeats_a_call_after_a_torn_answer) {
  par::PoolOptions options;
  options.workers = 1;
  for (const unsigned retries : {0U, 1U}) {
    options.child.retries = retries;
    options.child.idempotent = retries > 0;
    par::Reactor loop;
    auto pool = par::pool<par::RawIo, par::RawIo>(
        loop,
        [](int x) {
          if (x == 0) tear_second(18);
          return x;
        },
        options);
    Strings received;
    for (int i = 0; i < 3; ++i)
      pool.submit(i, [&](par::Result<int> r) {
        received.push_back(r ? "value" : par::to_string(r.error().code()));
      });
    loop.run();
    BOOST_TEST((received == Strings{"value", retries > 0 ? "value" : "bad_message", "value"}));
  }
}

BOOST_AUTO_TEST_CASE(a_torn_message_of_a_process_reports_how_the_child_ended) {
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(loop, [](par::Pipe<int, int> pipe) {
    tear_second(18);
    pipe.send(1);
    pipe.send(2);
  });
  Strings events;
  p.on_message([&](int x) { events.push_back(std::to_string(x)); });
  p.on_error([&](const par::Error& error) {
    events.push_back(par::to_string(error.code()));
    BOOST_TEST((error.exit() && error.exit()->signalled()));
  });
  p.on_end([&] { events.push_back("end"); });
  loop.run();
  BOOST_TEST((events == Strings{"1", "bad_message", "end"}));
}
