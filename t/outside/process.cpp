// process.cpp - typed processes, with the public interface: both directions, half closes, ends in order; children that
// leak; and many processes at once.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <variant>

namespace par = evparallel;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

void echo(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int x) { pipe.send(x); });
}

using Strings = std::vector<std::string>;

// Records the events of a process, in order.
template <class Inc, class Out>
Strings& note(par::Process<Inc, Out>& process, Strings& events) {
  process.on_message([&](Inc x) { events.push_back("message " + nlohmann::json(x).dump()); });
  process.on_end([&] { events.push_back("end"); });
  process.on_error([&](const par::Error& e) {
    events.push_back(std::string("error ") + par::to_string(e.code()));
  });
  process.on_exit([&](const par::ExitStatus& status) {
    events.push_back("exit " + std::string(par::to_string(status.cause)));
  });
  return events;
}

}  // namespace

BOOST_AUTO_TEST_CASE(messages_and_the_end_arrive_in_order) {
  par::Reactor loop;
  auto p = par::process(loop, echo);
  Strings events;
  note(p, events);
  for (int i = 0; i < 3; ++i) p.send(i);
  p.close();
  loop.run();
  BOOST_TEST((events == Strings{"message 0", "message 1", "message 2", "end", "exit normal"}));
}

BOOST_AUTO_TEST_CASE(pid_is_known_at_the_start) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    pipe.send(static_cast<int>(::getpid()));
    pipe.close();
  });
  BOOST_TEST(p.pid() == 0);
  pid_t started = 0;
  int said = 0;
  p.on_start([&](pid_t pid) { started = pid; });
  p.on_message([&](int pid) { said = pid; });
  p.close();
  loop.run();
  BOOST_TEST(started > 0);
  BOOST_TEST(said == started);
  BOOST_TEST(p.pid() == started);
}

BOOST_AUTO_TEST_CASE(the_child_may_close_first_and_continue_to_read) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, std::string> pipe) {
    pipe.send("hello");
    pipe.close();
    auto sum = std::make_shared<int>(0);
    pipe.on_message([sum](int x) { *sum += x; });
    pipe.on_end([sum] { ::_exit(*sum); });
  });
  Strings events;
  int code = 0;
  p.on_message([&](std::string s) { events.push_back(s); });
  p.on_end([&] {
    events.push_back("end");
    for (int i = 1; i <= 4; ++i) p.send(i);
    p.close();
  });
  p.on_exit([&](const par::ExitStatus& status) {
    events.push_back("exit");
    code = status.code();
  });
  loop.run();
  BOOST_TEST((events == Strings{"hello", "end", "exit"}));
  BOOST_TEST(code == 10);
}

BOOST_AUTO_TEST_CASE(the_parent_may_close_first_and_continue_to_read) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    pipe.on_end([pipe] {
      par::this_reactor()
          .after(std::chrono::milliseconds(5),
                 [pipe] {
                   for (int i = 0; i < 3; ++i) pipe.send(i);
                   pipe.close();
                 })
          .detach();
    });
  });
  Strings events;
  note(p, events);
  p.close();
  loop.run();
  BOOST_TEST((events == Strings{"message 0", "message 1", "message 2", "end", "exit normal"}));
}

BOOST_AUTO_TEST_CASE(a_child_may_return_after_its_last_message) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    for (int i = 0; i < 1000; ++i) pipe.send(i);
  });
  int count = 0;
  p.on_message([&](int x) { count += x == count; });
  p.close();
  loop.run();
  BOOST_TEST(count == 1000);
}

BOOST_AUTO_TEST_CASE(send_after_close_is_misuse) {
  par::Reactor loop;
  auto p = par::process(loop, echo);
  p.close();
  BOOST_TEST(p.closed());
  BOOST_CHECK_THROW(p.send(1), std::logic_error);
  p.close();  // a second close has no effect
  loop.run();
}

BOOST_AUTO_TEST_CASE(a_value_that_cannot_be_encoded_throws_and_is_not_sent) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<std::string, std::string> pipe) {
    pipe.on_message([pipe](std::string s) { pipe.send(s); });
  });
  Strings events;
  note(p, events);
  BOOST_CHECK_EXCEPTION(p.send("\xff"), par::Error,
                        [](const par::Error& e) { return e.code() == par::Errc::bad_message; });
  p.send("fine");
  p.close();
  loop.run();
  BOOST_TEST((events == Strings{"message \"fine\"", "end", "exit normal"}));
}

BOOST_AUTO_TEST_CASE(a_bad_message_is_reported_and_the_pipe_continues) {
  par::Reactor loop;
  // The child writes other types than the parent reads.
  auto p = par::process<par::JsonIo<int>>(loop, [](par::Pipe<int, int> pipe) {
    pipe.on_message([pipe](int x) {
      if (x == 1) par::this_reactor().stop();
      pipe.send(x);
    });
  });
  Strings events;
  note(p, events);
  p.send(1);
  p.send(2);
  p.close();
  loop.run();
  BOOST_TEST((events == Strings{"message 1", "message 2", "end", "exit normal"}));
}

BOOST_AUTO_TEST_CASE(kill_works_before_the_snapshot_has_answered) {
  par::Reactor loop;
  auto p = par::process(loop, echo);
  Strings events;
  note(p, events);
  p.kill(SIGKILL);
  loop.run();
  BOOST_TEST((events == Strings{"error child_killed", "end", "exit killed"}));
}

BOOST_AUTO_TEST_CASE(terminate_sends_sigterm_first) {
  par::Reactor loop;
  auto gentle = par::process(loop, [](par::Pipe<int, int> pipe) {
    ::signal(SIGTERM, [](int) { ::_exit(5); });
    pipe.send(1);
  });
  std::optional<par::ExitStatus> status;
  gentle.on_message([&](int) { gentle.terminate(std::chrono::hours(1)); });
  gentle.on_exit([&](const par::ExitStatus& s) { status = s; });
  loop.run();
  BOOST_REQUIRE(status.has_value());
  BOOST_TEST(status->exited());
  BOOST_TEST(status->code() == 5);
  BOOST_TEST((status->cause == par::Cause::error));
}

BOOST_AUTO_TEST_CASE(terminate_kills_a_child_that_ignores_sigterm) {
  par::Reactor loop;
  auto deaf = par::process(loop, [](par::Pipe<int, int> pipe) {
    ::signal(SIGTERM, SIG_IGN);
    pipe.send(1);
    par::this_reactor()
        .after(std::chrono::nanoseconds(0),
               [] {
                 for (;;) ::pause();
               })
        .detach();
  });
  std::optional<par::ExitStatus> status;
  deaf.on_message([&](int) { deaf.terminate(std::chrono::milliseconds(20)); });
  deaf.on_exit([&](const par::ExitStatus& s) { status = s; });
  loop.run();
  BOOST_REQUIRE(status.has_value());
  BOOST_TEST(status->signal() == SIGKILL);
  BOOST_TEST((status->cause == par::Cause::terminated));
}

BOOST_AUTO_TEST_CASE(every_kind_of_end_has_its_cause, *testing::guarantee("2.2")) {
  par::Reactor loop;
  struct Row {
    int how;
    par::Cause cause;
    int code;
    int signal;
  };
  const Row rows[] = {{0, par::Cause::normal, 0, 0},      {1, par::Cause::error, 7, 0},
                      {2, par::Cause::error, 8, 0},       {3, par::Cause::crash, 0, SIGSEGV},
                      {4, par::Cause::crash, 0, SIGABRT}, {5, par::Cause::crash, 0, SIGKILL},
                      {6, par::Cause::error, 70, 0}};
  for (const Row& row : rows) {
    auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
      pipe.on_message([](int how) {
        switch (how) {
          case 1: std::exit(7);
          case 2: ::_exit(8);
          case 3: ::raise(SIGSEGV); break;
          case 4: std::abort();
          case 5: ::raise(SIGKILL); break;
          case 6: throw std::runtime_error("uncaught");
          default: break;
        }
      });
    });
    std::optional<par::ExitStatus> status;
    std::string order;
    std::string error;
    p.on_error([&](const par::Error& e) {
      order += "error ";
      error = e.what();
    });
    p.on_end([&] { order += "end "; });
    p.on_exit([&](const par::ExitStatus& s) {
      order += "exit";
      status = s;
    });
    p.send(row.how);
    p.close();
    loop.run();
    BOOST_REQUIRE(status.has_value());
    BOOST_TEST((status->cause == row.cause), row.how);
    if (row.signal)
      BOOST_TEST(status->signal() == row.signal);
    else
      BOOST_TEST(status->code() == row.code);
    BOOST_TEST(order == (row.how == 0 ? "end exit" : "error end exit"));
    if (row.how == 6) BOOST_TEST(error == "std::runtime_error: uncaught");
    BOOST_TEST(status->describe().find(std::to_string(status->pid)) != std::string::npos);
  }
}

BOOST_AUTO_TEST_CASE(all_messages_of_a_dying_child_arrive_before_its_end,
                     *testing::guarantee("2.1 2.2")) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    for (int i = 0; i < 50; ++i) pipe.send(i);  // far less than any socket holds
    ::raise(SIGKILL);
  });
  Strings events;
  int messages = 0;
  p.on_message([&](int x) { messages += x == messages; });
  p.on_error([&](const par::Error& e) { events.push_back(par::to_string(e.code())); });
  p.on_end([&] { events.push_back("end"); });
  p.on_exit([&](const par::ExitStatus&) { events.push_back("exit"); });
  loop.run();
  BOOST_TEST(messages == 50);
  BOOST_TEST((events == Strings{"child_killed", "end", "exit"}));
}

BOOST_AUTO_TEST_CASE(a_paused_pipe_delays_its_end) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    pipe.send(1);
    pipe.send(2);
    ::_exit(0);
  });
  Strings events;
  note(p, events);
  p.on_message([&](int x) {
    events.push_back(std::to_string(x));
    if (x != 1) return;
    p.pause();
    loop.after(std::chrono::milliseconds(50),
               [&] {
                 events.push_back("resume");
                 p.resume();
               })
        .detach();
  });
  loop.run();
  BOOST_TEST((events == Strings{"1", "resume", "2", "error child_exited", "end", "exit normal"}));
}

BOOST_AUTO_TEST_CASE(a_dropped_process_ends_its_child) {
  par::Reactor loop;
  pid_t pid = 0;
  {
    auto p = par::process(loop, echo);
    p.on_start([&](pid_t started) {
      pid = started;
      loop.stop();
    });
    loop.run();
  }
  BOOST_REQUIRE(pid > 0);
  BOOST_TEST(testing::eventually([&] { return !testing::process_exists(pid); }));
}

BOOST_AUTO_TEST_CASE(a_dropped_process_is_ended_without_a_loop) {
  pid_t pid = 0;
  {
    par::Reactor loop;
    par::Options options;
    options.linger = std::chrono::milliseconds(10);
    options.grace = std::chrono::milliseconds(10);
    auto p = par::process(
        loop,
        [](par::Pipe<int, int> pipe) {
          ::signal(SIGTERM, SIG_IGN);
          pipe.send(1);
          for (;;) ::pause();
        },
        options);
    p.on_message([](int) {});
    p.on_start([&](pid_t started) {
      pid = started;
      loop.stop();
    });
    loop.run();
  }
  BOOST_REQUIRE(pid > 0);
  BOOST_TEST(testing::eventually([&] { return !testing::process_exists(pid); }));
}

BOOST_AUTO_TEST_CASE(messages_sent_before_a_drop_arrive) {
  par::Reactor loop;
  int pipe_ends[2];
  BOOST_REQUIRE(::pipe(pipe_ends) == 0);
  // The child inherits no descriptor that was opened after the snapshot: it opens this one through /proc.
  const std::string path =
      "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(pipe_ends[1]);
  par::Options options;
  options.linger = std::chrono::hours(1);
  {
    auto p = par::process(loop,
                          par::bind(
                              [](const std::string& to, par::Pipe<std::string, int> pipe) {
                                auto size = std::make_shared<std::size_t>(0);
                                pipe.on_message([size](std::string s) { *size += s.size(); });
                                pipe.on_end([size, to, pipe] {
                                  FILE* file = std::fopen(to.c_str(), "w");
                                  std::fprintf(file, "%zu", *size);
                                  std::fclose(file);
                                  pipe.close();
                                });
                              },
                              path),
                          options);
    for (int i = 0; i < 10; ++i) p.send(std::string(1 << 20, 'x'));
  }
  loop.run();
  char text[32] = {};
  BOOST_TEST(::read(pipe_ends[0], text, sizeof text - 1) > 0);
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
  BOOST_TEST(std::string(text) == std::to_string(10 << 20));
}

BOOST_AUTO_TEST_CASE(a_detached_process_continues_without_its_handle) {
  par::Reactor loop;
  Strings events;
  {
    auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
      pipe.send(1);
      pipe.close();
    });
    note(p, events);
    p.close();
    p.detach();
  }
  loop.run();
  BOOST_TEST((events == Strings{"message 1", "end", "exit normal"}));
}

BOOST_AUTO_TEST_CASE(a_process_may_be_destroyed_by_any_of_its_callbacks) {
  for (const std::string which : {"message", "error", "end", "exit"}) {
    par::Reactor loop;
    auto p =
        std::make_unique<par::Process<int, int>>(par::process(loop, [](par::Pipe<int, int> pipe) {
          pipe.send(1);
          pipe.send(2);
          ::_exit(3);
        }));
    int calls = 0;
    const auto at = [&](const std::string& what) {
      if (what != which) return;
      ++calls;
      p.reset();
    };
    p->on_message([&](int) { at("message"); });
    p->on_error([&](const par::Error&) { at("error"); });
    p->on_end([&] { at("end"); });
    p->on_exit([&](const par::ExitStatus&) { at("exit"); });
    loop.run();
    BOOST_TEST(calls == 1, which);
    BOOST_TEST(!p);
  }
}

BOOST_AUTO_TEST_CASE(pipes_held_by_their_own_callbacks_are_not_leaks) {
  auto token = std::make_shared<int>(0);
  {
    par::Reactor loop;
    auto p = std::make_shared<par::Process<int, int>>(par::process(loop, echo));
    p->on_message([token, p](int) {});
    p->on_end([token, p] {});
    p->on_exit([token, p](const par::ExitStatus&) {});
    p->send(1);
    p->close();
    loop.run();
    BOOST_TEST(p.use_count() == 1);
  }
  BOOST_TEST(token.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(moving_a_process_moves_everything) {
  par::Reactor loop;
  par::Process<int, int> p;
  BOOST_TEST(p.pid() == 0);
  Strings events;
  {
    auto q = par::process(loop, echo);
    note(q, events);
    p = std::move(q);
  }
  p.send(4);
  p.close();
  loop.run();
  BOOST_TEST((events == Strings{"message 4", "end", "exit normal"}));
}

BOOST_AUTO_TEST_CASE(send_returns_when_to_wait_and_on_drain_when_to_continue) {
  // Nobody reads before the first false: otherwise a child may always be faster than this program.
  const pid_t snapshot = par::default_snapshot().pid();
  ::kill(snapshot, SIGSTOP);
  BOOST_REQUIRE(testing::eventually([&] { return testing::state_of(snapshot) == 'T'; }));
  par::Reactor loop;
  par::Options options;
  options.high_water = 100000;
  auto p = par::process(
      loop,
      [](par::Pipe<std::string, std::size_t> pipe) {
        auto size = std::make_shared<std::size_t>(0);
        pipe.on_message([size](std::string s) { *size += s.size(); });
        pipe.on_end([size, pipe] {
          pipe.send(*size);
          pipe.close();
        });
      },
      options);
  const std::string piece(10000, 'x');
  int sent = 0;
  int waits = 0;
  std::size_t most = 0;
  std::size_t total = 0;
  const auto fill = [&] {
    while (sent < 1000) {
      ++sent;
      const bool go_on = p.send(piece);
      most = std::max(most, p.buffered());
      if (!go_on) return static_cast<void>(++waits);
    }
    p.close();
  };
  p.on_drain(fill);
  p.on_message([&](std::size_t n) { total = n; });
  fill();
  BOOST_TEST(waits == 1);
  ::kill(snapshot, SIGCONT);
  loop.run();
  BOOST_TEST(sent == 1000);
  BOOST_TEST(most > options.high_water);
  BOOST_TEST(most <= options.high_water + 2 * piece.size());
  BOOST_TEST(total == 1000u * piece.size());
}

BOOST_AUTO_TEST_CASE(each_side_refuses_messages_that_are_too_large) {
  par::Reactor loop;
  par::Options options;
  options.max_message = 1000;
  auto p = par::process<par::RawIo, par::RawIo>(
      loop,
      [](par::Pipe<int, std::string> pipe) {
        pipe.on_message([pipe](int size) {
          try {
            pipe.send(std::string(static_cast<std::size_t>(size), 'x'));
          } catch (const par::Error& error) {
            pipe.send(par::to_string(error.code()));
          }
        });
      },
      options);
  Strings received;
  p.on_message([&](std::string s) { received.push_back(s.substr(0, 9)); });
  p.send(1000);
  p.send(1001);
  p.send(2);
  p.close();
  loop.run();
  BOOST_TEST((received == Strings{"xxxxxxxxx", "too_large", "xx"}));
}

BOOST_AUTO_TEST_CASE(a_fault_kills_at_its_message_and_the_exit_closes_the_rest) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    pipe.on_message([pipe](int x) {
      pipe.send(x);
      if (x == 2) std::exit(0);
    });
  });
  Strings events;
  note(p, events);
  for (int i = 1; i <= 5; ++i) p.send(i);
  loop.run();
  // exit() writes the messages that were sent before it.
  BOOST_TEST(
      (events == Strings{"message 1", "message 2", "error child_exited", "end", "exit normal"}));
}

BOOST_AUTO_TEST_CASE(a_fork_of_the_program_does_not_hide_the_end) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    // A process that the task forked holds the socket and lives on.
    if (::fork() == 0)
      for (;;) ::pause();
    pipe.send(1);
    par::this_reactor().after(std::chrono::milliseconds(1), [] { ::_exit(6); }).detach();
  });
  Strings events;
  note(p, events);
  loop.run();
  BOOST_TEST((events == Strings{"message 1", "error child_exited", "end", "exit error"}));
}

// ---- in an audit build a leak of a child is reported; a child without a leak ends normally ----

namespace {

// Many blocks, since a stale copy of a pointer in a register or on the stack hides one.
[[gnu::noinline]] void leak() {
  for (int i = 0; i < 100; ++i) {
    char* volatile lost = new char[1000];
    lost = nullptr;
    static_cast<void>(lost);
  }
}

// The end of a child whose task is `f`.
template <class F>
par::ExitStatus end_of(F f) {
  par::Reactor loop;
  auto child = par::process(loop, f);
  std::optional<par::ExitStatus> status;
  child.on_error([](const par::Error&) {});  // a child that calls exit() closes nothing
  child.on_exit([&](const par::ExitStatus& how) { status = how; });
  child.close();
  loop.run();
  return status.value();
}

bool skipped() {
  if (!testing::watched_for_leaks()) testing::skip("no LeakSanitizer: --enable-audit");
  return !testing::watched_for_leaks();
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_child_that_leaks_ends_with_an_error) {
  if (skipped()) return;
  testing::allow_reports(1);
  const par::ExitStatus how = end_of([](par::Pipe<int, int>) { leak(); });
  BOOST_TEST(how.exited());
  BOOST_TEST(how.code() != 0);
  BOOST_TEST(par::to_string(how.cause) == "error");
  BOOST_TEST(testing::sanitizer_reports() == 1);
}

BOOST_AUTO_TEST_CASE(a_child_that_leaks_and_calls_exit_ends_with_an_error) {
  if (skipped()) return;
  testing::allow_reports(1);
  const par::ExitStatus how = end_of([](par::Pipe<int, int>) {
    leak();
    std::exit(0);
  });
  BOOST_TEST(how.exited());
  BOOST_TEST(how.code() != 0);
  BOOST_TEST(testing::sanitizer_reports() == 1);
}

// The end of the child of a remote function is not reported to a callback.
BOOST_AUTO_TEST_CASE(a_leak_in_the_child_of_a_remote_function_is_found) {
  if (skipped()) return;
  testing::allow_reports(1);
  par::Reactor loop;
  auto leaking = par::run(loop, [](int n) {
    leak();
    return n + 1;
  });
  int answer = 0;
  leaking(1, [&](par::Result<int> r) { answer = r.value(); });
  loop.run();
  BOOST_TEST(answer == 2);
  leaking.close();
  BOOST_TEST(testing::eventually([] { return testing::sanitizer_reports() == 1; }));
}

BOOST_AUTO_TEST_CASE(memory_that_is_still_referenced_is_not_a_leak) {
  const par::ExitStatus how = end_of([](par::Pipe<int, int>) {
    static char* held = nullptr;
    held = new char[1000];
    held[0] = 1;
  });
  BOOST_TEST(how.exited());
  BOOST_TEST(how.code() == 0);
  const par::ExitStatus after_exit = end_of([](par::Pipe<int, int>) { std::exit(3); });
  BOOST_TEST(after_exit.code() == 3);
  BOOST_TEST(testing::sanitizer_reports() == 0);
}

// ---- many at once, controlled by a codec of their own ----

namespace {

// The orders for a worker: start with a name and a seed list, or stop.
struct Start {
  std::string name;
  std::vector<unsigned> seeds;
};
struct Stop {};
using Order = std::variant<Start, Stop>;

// One line of text: "start NAME SEED...", or "stop".
struct LineIo {
  static void put(par::Writer& out, const Order& order) {
    std::ostringstream line;
    if (const Start* start = std::get_if<Start>(&order)) {
      line << "start " << start->name;
      for (const unsigned seed : start->seeds) line << ' ' << seed;
    } else {
      line << "stop";
    }
    line << '\n';
    out.write(line.str());
  }
  static Order get(par::Reader& in) {
    std::istringstream line{std::string(in.rest())};
    std::string word;
    line >> word;
    if (word == "stop") return Stop{};
    if (word != "start") throw std::runtime_error("neither start nor stop: " + word);
    Start start;
    line >> start.name;
    for (unsigned seed; line >> seed;) start.seeds.push_back(seed);
    return start;
  }
};

// The same computation for all: a few million numbers from the seeds, summed.
std::uint64_t compute(const std::vector<unsigned>& seeds) {
  constexpr int numbers = 500000;
  std::uint64_t sum = 0;
  for (const unsigned seed : seeds) {
    std::minstd_rand random(seed);
    for (int i = 0; i < numbers; ++i) sum += random();
  }
  return sum;
}

void work(par::Pipe<Order, std::string> pipe) {
  pipe.on_message([pipe](Order order) {
    if (const Start* start = std::get_if<Start>(&order))
      pipe.send(start->name + " " + std::to_string(compute(start->seeds)));
    else
      pipe.close();
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(sixty_four_processes_give_the_same_answer) {
  constexpr int processes = 64;
  const std::vector<unsigned> seeds{1, 2, 3, 4};
  const std::string expected = std::to_string(compute(seeds));
  par::Reactor loop;
  std::mt19937 random(testing::seed(20261122));
  std::vector<par::Process<std::string, Order>> all(processes);
  int right = 0;
  int ended = 0;
  for (int i = 0; i < processes; ++i) {
    loop.after(std::chrono::milliseconds(random() % 300),
               [&, i] {
                 auto& p = all[static_cast<std::size_t>(i)];
                 p = par::process<par::DefaultIo, LineIo>(loop, work);
                 const std::string name = "worker" + std::to_string(i);
                 p.on_message([&, i, name](std::string answer) {
                   right += answer == name + " " + expected;
                   auto& self = all[static_cast<std::size_t>(i)];
                   self.send(Stop{});
                   self.close();
                 });
                 p.on_exit([&](const par::ExitStatus& status) {
                   ended += status.cause == par::Cause::normal;
                 });
                 p.send(Start{name, seeds});
               })
        .detach();
  }
  loop.run();
  BOOST_TEST(right == processes);
  BOOST_TEST(ended == processes);
}

BOOST_AUTO_TEST_CASE(five_hundred_children_run_at_the_same_time) {
  par::Reactor loop;
  std::vector<par::Process<int, int>> all;
  int sum = 0;
  int ended = 0;
  for (int i = 0; i < 500; ++i) {
    all.push_back(par::process(
        loop, [](par::Pipe<int, int> pipe) { pipe.on_message([pipe](int x) { pipe.send(x); }); }));
    all.back().on_message([&](int x) { sum += x; });
    all.back().on_exit(
        [&](const par::ExitStatus& status) { ended += status.cause == par::Cause::normal; });
    all.back().send(i);
    all.back().close();
  }
  loop.run();
  BOOST_TEST(sum == 500 * 499 / 2);
  BOOST_TEST(ended == 500);
}

BOOST_AUTO_TEST_CASE(a_hundred_thousand_calls_may_be_in_flight, *testing::guarantee("7.4")) {
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(loop, [](int x) { return -x; });
  int right = 0;
  for (int i = 0; i < 100000; ++i)
    f(i, [&right, i](par::Result<int> r) { right += r.value() == -i; });
  BOOST_TEST(f.pending() == 100000u);
  loop.run();
  BOOST_TEST(right == 100000);
  BOOST_TEST(f.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(asynchronous_calls_may_be_answered_in_any_order) {
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(loop, [](int x, par::Reply<int> reply) {
    // The first call is answered last.
    static std::optional<par::Reply<int>> first;
    if (x == 0) {
      first = reply;
    } else {
      reply(x);
      if (x == 4999) (*first)(0);
    }
  });
  std::vector<int> order;
  for (int i = 0; i < 5000; ++i) f(i, [&](par::Result<int> r) { order.push_back(r.value()); });
  loop.run();
  BOOST_REQUIRE(order.size() == 5000u);
  BOOST_TEST(order.front() == 1);
  BOOST_TEST(order.back() == 0);
}

BOOST_AUTO_TEST_CASE(the_calls_of_many_children_are_never_mixed_up) {
  par::Reactor loop;
  std::vector<par::Remote<int(int)>> all;
  for (int i = 0; i < 8; ++i) all.push_back(par::run(loop, [i](int x) { return x * 8 + i; }));
  int right = 0;
  for (int x = 0; x < 500; ++x)
    for (int i = 0; i < 8; ++i)
      all[static_cast<std::size_t>(i)](
          x, [&right, x, i](par::Result<int> r) { right += r.value() == x * 8 + i; });
  loop.run();
  BOOST_TEST(right == 4000);
}
