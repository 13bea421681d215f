// run.cpp - remote functions, with the public interface: answers, order, ends, codecs; and calls from inside a child,
// through the rendezvous socket.
#include "calling.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <stdexcept>

namespace par = evparallel;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

int square(int x) {
  return x * x;
}

// The answer may arrive before the snapshot's report of its child.
pid_t pid_of(par::Reactor& loop, const par::Remote<int(int)>& f) {
  par::Timer until_known = loop.every(std::chrono::milliseconds(1), [&] {
    if (f.pid() > 0) until_known.cancel();
  });
  loop.run();
  return f.pid();
}

struct Point {
  int x;
  int y;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Point, x, y)
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_call_is_answered) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  int answer = 0;
  f(7, [&](par::Result<int> r) { answer = r.value(); });
  BOOST_TEST(answer == 0);  // never from inside the call
  BOOST_TEST(f.pending() == 1u);
  loop.run();
  BOOST_TEST(answer == 49);
  BOOST_TEST(f.pending() == 0u);
  BOOST_TEST(pid_of(loop, f) > 0);
}

BOOST_AUTO_TEST_CASE(the_task_runs_in_another_process) {
  par::Reactor loop;
  auto f = par::run(loop, [](int) { return static_cast<int>(::getpid()); });
  pid_t there = 0;
  f(0, [&](par::Result<int> r) { there = r.value(); });
  loop.run();
  BOOST_TEST(there > 0);
  BOOST_TEST(there != ::getpid());
  BOOST_TEST(there == pid_of(loop, f));
}

BOOST_AUTO_TEST_CASE(a_thousand_calls_at_once_get_their_own_answers) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  int right = 0;
  for (int i = 0; i < 1000; ++i)
    f(i, [&right, i](par::Result<int> r) { right += r.value() == i * i; });
  loop.run();
  BOOST_TEST(right == 1000);
}

BOOST_AUTO_TEST_CASE(ten_thousand_successive_calls_are_answered) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) { return x + 1; });
  int last = 0;
  std::function<void(par::Result<int>)> next = [&](par::Result<int> r) {
    last = r.value();
    if (last < 10000) f(last, next);
  };
  f(0, next);
  loop.run();
  BOOST_TEST(last == 10000);
}

BOOST_AUTO_TEST_CASE(a_callback_may_make_calls) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  std::vector<int> answers;
  f(1, [&](par::Result<int>) {
    for (int i = 0; i < 100; ++i) f(i, [&](par::Result<int> r) { answers.push_back(r.value()); });
  });
  loop.run();
  BOOST_REQUIRE(answers.size() == 100u);
  for (int i = 0; i < 100; ++i) BOOST_TEST(answers[static_cast<std::size_t>(i)] == i * i);
}

BOOST_AUTO_TEST_CASE(structures_and_containers_are_preserved) {
  par::Reactor loop;
  auto f = par::run(loop, [](const std::vector<Point>& points) {
    std::map<std::string, int> sums;
    for (const Point& p : points) {
      sums["x"] += p.x;
      sums["y"] += p.y;
    }
    return sums;
  });
  std::map<std::string, int> sums;
  f({{1, 10}, {2, 20}}, [&](par::Result<std::map<std::string, int>> r) { sums = r.value(); });
  loop.run();
  BOOST_TEST(sums["x"] == 3);
  BOOST_TEST(sums["y"] == 30);
}

BOOST_AUTO_TEST_CASE(an_exception_reaches_the_caller_and_the_child_continues) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) -> int {
    if (x == 0) throw std::out_of_range("no zero here");
    if (x == 1) throw 42;
    if (x == 2) {
      try {
        throw std::runtime_error("disk full");
      } catch (...) {
        std::throw_with_nested(std::logic_error("cannot save"));
      }
    }
    return static_cast<int>(::getpid());
  });
  std::vector<par::Error> errors;
  const auto keep = [&](par::Result<int> r) { errors.push_back(r.error()); };
  pid_t before = 0;
  pid_t after = 0;
  f(9, [&](par::Result<int> r) { before = r.value(); });
  for (int i = 0; i < 3; ++i) f(i, keep);
  f(9, [&](par::Result<int> r) { after = r.value(); });
  loop.run();
  BOOST_REQUIRE(errors.size() == 3u);
  for (const par::Error& error : errors) {
    BOOST_TEST((error.code() == par::Errc::remote_exception));
    BOOST_TEST((error.delivery() == par::Delivery::started));
  }
  BOOST_TEST(errors[0].remote_type() == "std::out_of_range");
  BOOST_TEST(std::string(errors[0].what()) == "std::out_of_range: no zero here");
  BOOST_TEST(errors[1].remote_type() == "int");
  BOOST_TEST(errors[2].remote_type() == "std::logic_error");
  BOOST_TEST(std::string(errors[2].what()) ==
             "std::logic_error: cannot save; caused by std::runtime_error: disk full");
  BOOST_TEST(before == after);
}

BOOST_AUTO_TEST_CASE(an_error_of_the_library_thrown_by_a_task_is_a_remote_exception) {
  par::Reactor loop;
  auto f = par::run(loop, [](int) -> int { throw par::Error(par::Errc::bad_message, "mine"); });
  std::optional<par::Error> error;
  f(0, [&](par::Result<int> r) { error = r.error(); });
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::remote_exception));
  BOOST_TEST(error->remote_type() == "evparallel::Error");
}

BOOST_AUTO_TEST_CASE(a_dead_child_is_replaced_at_the_next_call) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    if (x == 0) ::raise(SIGKILL);
    if (x == 1) std::exit(3);
    if (x == 2) ::_exit(4);
    return static_cast<int>(::getpid());
  });
  std::vector<pid_t> pids;
  const auto ask = [&] {
    f(9, [&](par::Result<int> r) { pids.push_back(r.value()); });
    loop.run();
  };
  const auto die = [&](int how) {
    std::optional<par::Error> error;
    f(how, [&](par::Result<int> r) { error = r.error(); });
    loop.run();
    return error.value();
  };
  ask();
  const par::Error killed = die(0);
  ask();
  const par::Error exited = die(1);
  ask();
  const par::Error left = die(2);
  ask();
  BOOST_TEST((killed.code() == par::Errc::child_killed));
  BOOST_REQUIRE(killed.exit().has_value());
  BOOST_TEST(killed.exit()->signal() == SIGKILL);
  BOOST_TEST(killed.exit()->pid == pids[0]);
  BOOST_TEST((killed.exit()->cause == par::Cause::crash));
  BOOST_TEST((killed.delivery() == par::Delivery::started));
  BOOST_TEST((exited.code() == par::Errc::child_exited));
  BOOST_TEST(exited.exit()->code() == 3);
  BOOST_TEST(std::string(exited.what()) ==
             "child_exited: child " + std::to_string(pids[1]) + " exited with status 3");
  BOOST_TEST(left.exit()->code() == 4);
  BOOST_REQUIRE(pids.size() == 4u);
  BOOST_TEST(pids[0] != pids[1]);
  BOOST_TEST(pids[1] != pids[2]);
  BOOST_TEST(pids[2] != pids[3]);
}

BOOST_AUTO_TEST_CASE(each_call_of_a_dying_child_gets_one_error, *testing::guarantee("1.2 2.3")) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    if (x == 50) ::raise(SIGKILL);
    return x;
  });
  std::vector<int> received(100);
  int right = 0;
  int killed = 0;
  int killed_started = 0;
  // Sent together: a call after the end was seen goes to another child.
  loop.post([&] {
    for (int i = 0; i < 100; ++i)
      f(i, [&, i](par::Result<int> r) {
        ++received[static_cast<std::size_t>(i)];
        if (r) {
          right += *r == i;
        } else {
          killed += r.error().code() == par::Errc::child_killed;
          killed_started += r.error().delivery() == par::Delivery::started;
        }
      });
  });
  loop.run();
  for (const int times : received) BOOST_TEST(times == 1);
  // Answers written before the end count: the slow start of gathering holds back none of them.
  BOOST_TEST(right == 50);
  BOOST_TEST(killed == 50);
  BOOST_TEST(killed_started == 1);
}

BOOST_AUTO_TEST_CASE(a_finished_answer_does_not_wait_for_a_slow_call) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    if (x == 1)
      for (;;) ::pause();
    return ::getpid();
  });
  bool first = false;
  std::optional<par::Error> second;
  // The answer may come before the snapshot has reported the pid: f.pid() is 0 then, and kill(0) means the own group.
  f(0, [&](par::Result<pid_t> r) {
    first = r.has_value();
    ::kill(r.value(), SIGKILL);
  });
  f(1, [&](par::Result<pid_t> r) { second = r.error(); });
  loop.run();
  BOOST_TEST(first);
  BOOST_REQUIRE(second.has_value());
  BOOST_TEST((second->code() == par::Errc::child_killed));
}

BOOST_AUTO_TEST_CASE(asynchronous_tasks_may_answer_later) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x, par::Reply<int> reply) {
    // When all calls have arrived, from the loop of the child: answers come in another order than calls.
    static std::vector<std::pair<int, par::Reply<int>>> waiting;
    waiting.emplace_back(x, reply);
    if (waiting.size() < 3) return;
    par::this_reactor()
        .after(std::chrono::milliseconds(1),
               [] {
                 for (; !waiting.empty(); waiting.pop_back())
                   waiting.back().second(waiting.back().first * 2);
               })
        .detach();
  });
  std::vector<int> order;
  for (int i = 0; i < 30; i += 10)
    f(i, [&, i](par::Result<int> r) {
      BOOST_TEST(r.value() == i * 2);
      order.push_back(i);
    });
  loop.run();
  BOOST_TEST((order == std::vector<int>{20, 10, 0}));
}

BOOST_AUTO_TEST_CASE(a_reply_answers_once_and_a_dropped_reply_fails) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x, par::Reply<std::string> reply) {
    if (x == 0) {
      const bool first = reply("a");
      const bool second = reply("b");
      par::this_reactor()
          .after(std::chrono::milliseconds(1),
                 [first, second] {
                   if (!first || second) ::_exit(9);
                 })
          .detach();
    }
    if (x == 1) reply.fail(std::make_exception_ptr(std::runtime_error("later")));
    if (x == 2) throw std::runtime_error("at once");
    if (x == 4) reply("\xff");  // cannot be encoded
  });
  std::vector<std::string> received;
  for (int i = 0; i < 5; ++i)
    f(i, [&](par::Result<std::string> r) {
      received.push_back(
          r ? *r : std::string(par::to_string(r.error().code())) + "|" + r.error().what());
    });
  loop.run();
  BOOST_REQUIRE(received.size() == 5u);
  BOOST_TEST(received[0] == "a");
  BOOST_TEST(received[1] == "remote_exception|std::runtime_error: later");
  BOOST_TEST(received[2] == "remote_exception|std::runtime_error: at once");
  BOOST_TEST(received[3] == "remote_exception|the task dropped its reply");
  BOOST_TEST(received[4].substr(0, 12) == "bad_message|");
}

BOOST_AUTO_TEST_CASE(a_synchronous_task_may_run_the_loop_of_its_child) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    int fired = 0;
    par::this_reactor().after(std::chrono::milliseconds(1), [&] { fired = x; }).detach();
    par::this_reactor().run();
    return fired;
  });
  std::vector<int> answers;
  for (int i = 1; i <= 3; ++i) f(i, [&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  BOOST_TEST((answers == std::vector<int>{1, 2, 3}));
}

BOOST_AUTO_TEST_CASE(timers_of_a_synchronous_task_run_between_calls) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    static int ticks = 0;
    if (x == 0) par::this_reactor().every(std::chrono::milliseconds(1), [] { ++ticks; }).detach();
    return ticks;
  });
  int ticks = 0;
  std::function<void(par::Result<int>)> again = [&](par::Result<int> r) {
    ticks = r.value();
    if (ticks < 3) f(1, again);
  };
  f(0, again);
  loop.run();
  BOOST_TEST(ticks >= 3);
}

BOOST_AUTO_TEST_CASE(an_argument_that_cannot_be_encoded_fails_its_own_call_from_the_loop,
                     *testing::guarantee("1.2")) {
  par::Reactor loop;
  auto f = par::run(loop, [](const std::string& s) { return s.size(); });
  std::optional<par::Error> error;
  std::size_t size = 0;
  f("\xff\xfe", [&](par::Result<std::size_t> r) { error = r.error(); });
  BOOST_TEST(!error.has_value());
  f("fine", [&](par::Result<std::size_t> r) { size = r.value(); });
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::bad_message));
  BOOST_TEST((error->delivery() == par::Delivery::not_sent));
  BOOST_TEST(size == 4u);
}

BOOST_AUTO_TEST_CASE(an_answer_that_cannot_be_encoded_fails_its_own_call) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) { return x == 0 ? std::string("\xff") : std::string("fine"); });
  std::optional<par::Error> error;
  std::string text;
  f(0, [&](par::Result<std::string> r) { error = r.error(); });
  f(1, [&](par::Result<std::string> r) { text = r.value(); });
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::bad_message));
  BOOST_TEST(text == "fine");
}

BOOST_AUTO_TEST_CASE(close_lets_calls_be_answered_and_ends_the_child) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  int answers = 0;
  for (int i = 0; i < 10; ++i) f(i, [&](par::Result<int> r) { answers += r.has_value(); });
  f.close();
  BOOST_CHECK_THROW(f(1, [](par::Result<int>) {}), std::logic_error);
  loop.run();
  BOOST_TEST(answers == 10);
  BOOST_TEST(testing::eventually(
      [] { return testing::children_of(par::default_snapshot().pid()).empty(); }));
}

BOOST_AUTO_TEST_CASE(close_waits_for_asynchronous_answers) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x, par::Reply<int> reply) {
    par::this_reactor().after(std::chrono::milliseconds(20), [x, reply] { reply(x); }).detach();
  });
  int answer = 0;
  f(5, [&](par::Result<int> r) { answer = r.value(); });
  f.close();
  loop.run();
  BOOST_TEST(answer == 5);
}

BOOST_AUTO_TEST_CASE(a_dropped_remote_cancels_its_calls_from_the_loop, *testing::guarantee("1.2")) {
  par::Reactor loop;
  std::vector<par::Errc> codes;
  {
    auto f = par::run(loop, square);
    for (int i = 0; i < 3; ++i)
      f(i, [&](par::Result<int> r) { codes.push_back(r.error().code()); });
  }
  BOOST_TEST(codes.empty());
  loop.run();
  BOOST_REQUIRE(codes.size() == 3u);
  for (const par::Errc code : codes) BOOST_TEST((code == par::Errc::cancelled));
}

BOOST_AUTO_TEST_CASE(a_callback_that_throws_on_cancelled_does_not_keep_run_from_returning) {
  par::Reactor loop;
  {
    auto f = par::run(loop, square);
    f(1, [](par::Result<int> r) { r.value(); });
  }
  BOOST_CHECK_THROW(loop.run(), par::Error);
  loop.run();
}

BOOST_AUTO_TEST_CASE(a_remote_may_be_destroyed_by_its_own_callback) {
  par::Reactor loop;
  auto f = std::make_unique<par::Remote<int(int)>>(par::run(loop, square));
  std::vector<std::string> received;
  (*f)(1, [&](par::Result<int> r) {
    received.push_back(r ? "value" : "error");
    f.reset();
  });
  (*f)(2, [&](par::Result<int> r) { received.push_back(par::to_string(r.error().code())); });
  loop.run();
  BOOST_TEST((received == std::vector<std::string>{"value", "cancelled"}));
}

BOOST_AUTO_TEST_CASE(an_exception_in_a_callback_is_thrown_out_of_run_and_the_loop_continues) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  int right = 0;
  f(1, [](par::Result<int>) { throw std::runtime_error("mine"); });
  for (int i = 0; i < 10; ++i) f(i, [&, i](par::Result<int> r) { right += r.value() == i * i; });
  BOOST_CHECK_THROW(loop.run(), std::runtime_error);
  loop.run();
  BOOST_TEST(right == 10);
}

BOOST_AUTO_TEST_CASE(value_throws_an_unread_error) {
  par::Reactor loop;
  auto f = par::run(loop, [](int) -> int { throw std::runtime_error("x"); });
  f(1, [](par::Result<int> r) { r.value(); });
  BOOST_CHECK_THROW(loop.run(), par::Error);
}

BOOST_AUTO_TEST_CASE(handles_outlive_their_reactor) {
  par::Remote<int(int)> f;
  bool called = false;
  {
    par::Reactor loop;
    f = par::run(loop, square);
    f(1, [&](par::Result<int>) { called = true; });
  }
  BOOST_TEST(!called);
  BOOST_CHECK_THROW(f(1, [](par::Result<int>) {}), std::logic_error);
}

BOOST_AUTO_TEST_CASE(hundreds_of_remotes_work_at_the_same_time) {
  par::Reactor loop;
  std::vector<par::Remote<int(int)>> all;
  int sum = 0;
  for (int i = 0; i < 200; ++i) {
    all.push_back(par::run(loop, square));
    all.back()(i, [&](par::Result<int> r) { sum += r.value() > 0 || r.value() == 0; });
  }
  loop.run();
  BOOST_TEST(sum == 200);
}

BOOST_AUTO_TEST_CASE(call_ids_increase) {
  par::Reactor loop;
  auto f = par::run(loop, square);
  const par::Call a = f(1, [](par::Result<int>) {});
  const par::Call b = f(1, [](par::Result<int>) {});
  BOOST_TEST(a.id() < b.id());
  loop.run();
}

BOOST_AUTO_TEST_CASE(messages_of_8_and_100_megabytes_arrive_each_way) {
  par::Reactor loop;
  const auto reverse = [](std::string s) {
    for (std::size_t i = 0, j = s.size(); i + 1 < j; ++i) std::swap(s[i], s[--j]);
    return s;
  };
  auto json = par::run(loop, reverse);
  auto raw = par::run<par::RawIo, par::RawIo>(loop, reverse);
  for (const std::size_t size : {std::size_t{8} << 20, std::size_t{100} << 20}) {
    std::string text(size, 'a');
    text[0] = 'x';
    text[1] = 'y';
    std::string by_json;
    std::string by_raw;
    std::string moved;
    json(text, [&](par::Result<std::string> r) { by_json = std::move(r).value(); });
    raw(text, [&](par::Result<std::string> r) { by_raw = std::move(r).value(); });
    raw(std::string(text), [&](par::Result<std::string> r) { moved = std::move(r).value(); });
    loop.run();
    const std::string expected = reverse(text);
    BOOST_TEST((by_json == expected));
    BOOST_TEST((by_raw == expected));
    BOOST_TEST((moved == expected));
  }
}

// ---- run and process inside a child, through the rendezvous socket ----

namespace {

// Calls itself in a child of its own, `depth` times.
int deeper(int depth) {
  if (depth == 0) return 0;
  int below = -1000;
  auto f = par::run(par::this_reactor(), deeper);
  f(depth - 1, [&](par::Result<int> r) { below = r.value(); });
  par::this_reactor().run();
  return below + 1;
}

}  // namespace

BOOST_AUTO_TEST_CASE(twenty_levels_of_children_may_call_each_other) {
  par::Reactor loop;
  auto f = par::run(loop, deeper);
  int depth = 0;
  f(20, [&](par::Result<int> r) { depth = r.value(); });
  loop.run();
  BOOST_TEST(depth == 20);
}

BOOST_AUTO_TEST_CASE(an_asynchronous_task_may_call_other_children) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x, par::Reply<int> reply) {
    auto inner = std::make_shared<par::Remote<int(int)>>(
        par::run(par::this_reactor(), [](int y) { return y * 2; }));
    (*inner)(x, [inner, reply](par::Result<int> r) { reply(r.value() + 1); });
  });
  std::vector<int> answers;
  for (int i = 0; i < 10; ++i) f(i, [&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  std::sort(answers.begin(), answers.end());
  BOOST_REQUIRE(answers.size() == 10u);
  for (int i = 0; i < 10; ++i) BOOST_TEST(answers[static_cast<std::size_t>(i)] == i * 2 + 1);
}

BOOST_AUTO_TEST_CASE(the_children_of_a_child_end_with_it, *testing::guarantee("5.4")) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    static auto inner = par::process(par::this_reactor(), [](par::Pipe<int, int>) {
      for (;;) ::pause();
    });
    inner.on_start([pipe](pid_t pid) { pipe.send(static_cast<int>(pid)); });
  });
  pid_t grandchild = 0;
  p.on_message([&](int pid) {
    grandchild = pid;
    p.kill(SIGKILL);
  });
  loop.run();
  BOOST_REQUIRE(grandchild > 0);
  BOOST_TEST(testing::eventually([&] { return !testing::process_exists(grandchild); }));
}

BOOST_AUTO_TEST_CASE(the_default_snapshot_of_a_child_is_the_one_that_forked_it) {
  par::Reactor loop;
  auto f = par::run(loop, [] {
    if (!par::default_snapshot().alive()) return 0;
    par::Options options;
    options.snapshot = &par::default_snapshot();
    auto inner = par::run(
        par::this_reactor(), [] { return par::default_snapshot().pid(); }, options);
    pid_t pid = 0;
    inner([&](par::Result<pid_t> r) { pid = r.value(); });
    par::this_reactor().run();
    return pid;
  });
  pid_t pid = 0;
  f([&](par::Result<pid_t> r) { pid = r.value(); });
  loop.run();
  BOOST_TEST(pid == par::default_snapshot().pid());
}

BOOST_AUTO_TEST_CASE(a_thousand_nested_calls_are_answered) {
  par::Reactor loop;
  auto f = par::run(loop, [](int n) {
    auto inner = par::run(par::this_reactor(), [](int y) { return y + 1; });
    int sum = 0;
    for (int i = 0; i < n; ++i) inner(i, [&](par::Result<int> r) { sum += r.value() - 1; });
    par::this_reactor().run();
    return sum;
  });
  int sum = 0;
  f(1000, [&](par::Result<int> r) { sum = r.value(); });
  loop.run();
  BOOST_TEST(sum == 999 * 1000 / 2);
}

BOOST_AUTO_TEST_CASE(a_process_that_the_snapshot_refuses_gets_an_error_and_may_retry) {
  // A process that a task has forked is not a child of the snapshot.
  par::Reactor loop;
  auto f = par::run(loop, [] {
    int said[2];
    if (::pipe(said) != 0) return std::string("pipe");
    if (::fork() == 0) {
      std::string received;
      auto inner = par::run(par::this_reactor(), [] { return 1; });
      for (int i = 0; i < 2; ++i) {
        inner([&](par::Result<int> r) {
          received += r ? "value;"
                        : std::string(par::to_string(r.error().code())) + ' ' +
                              par::to_string(r.error().delivery()) + ';';
        });
        par::this_reactor().run();
      }
      const ssize_t size = static_cast<ssize_t>(received.size());
      ::_exit(::write(said[1], received.data(), received.size()) == size ? 0 : 1);
    }
    ::close(said[1]);
    char text[200];
    const ssize_t size = ::read(said[0], text, sizeof text);
    ::close(said[0]);
    return std::string(text, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  });
  std::string received;
  f([&](par::Result<std::string> r) { received = r.value(); });
  loop.run();
  BOOST_TEST(received == "overloaded not_sent;overloaded not_sent;");
}

// ---- backtraces ----

namespace {

std::string backtrace_of(const par::Options& options, int (*task)(int)) {
  par::Reactor loop;
  auto f = par::run(loop, task, options);
  std::string backtrace;
  f(1, [&](par::Result<int> r) { backtrace = r.error().describe_backtrace(); });
  loop.run();
  return backtrace;
}

int fail(int) {
  throw std::runtime_error("it failed");
}

int end_at_once(int) {
  ::raise(SIGKILL);
  return 0;
}

}  // namespace

// This program is not linked with the library that wraps the throw function of the C++ runtime.
BOOST_AUTO_TEST_CASE(an_error_without_a_backtrace_gives_the_reason) {
  par::Options options;
  options.backtrace = true;
  BOOST_TEST(testing::has(backtrace_of(options, fail), "not linked with -levparallel-throw"));
  BOOST_TEST(testing::has(backtrace_of(options, end_at_once), "no crash report"));
  const par::Error other(par::Errc::cancelled, "cancelled");
  BOOST_TEST(other.describe_backtrace() == "no backtrace: no exception left a task\n");
}
