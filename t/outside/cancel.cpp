// cancel.cpp - calls that are given up: cancelled, or past their deadline; and calls that are made again.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <new>
#include <random>

namespace par = evparallel;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int most_calls = 8192;

// Reports of tasks and orders for them, in memory shared by all processes of this program.
struct Board {
  std::atomic<int> at{-1};   // the last call that was begun
  std::atomic<int> go{0};    // waiting tasks may continue
  std::atomic<int> seen{0};  // number of tasks that saw cancelled()
  std::atomic<int> ran[most_calls];
};
Board* board = nullptr;

}  // namespace

void testing_main_init() {
  board = &testing::shared<Board>();
  testing::take_default_snapshot();
}

namespace {

void clear_board() {
  board->at = -1;
  board->go = 0;
  board->seen = 0;
  for (auto& count : board->ran) count = 0;
}

void nap() {
  ::poll(nullptr, 0, 1);
}

// ---- tasks; the argument is the number of the call ----

void note_run(int x) {
  ++board->ran[x];
  board->at = x;
}

// Call 0 waits until it may continue; all others return at once.
int first_waits(int x) {
  note_run(x);
  while (x == 0 && board->go == 0) nap();
  return x;
}

// Call 0 returns when it sees that it was cancelled.
int first_listens(int x) {
  note_run(x);
  if (x != 0) return x;
  while (!par::this_call::cancelled()) nap();
  ++board->seen;
  return x;
}

// Call 0 never returns.
int first_hangs(int x) {
  note_run(x);
  while (x == 0) nap();
  return x;
}

int first_hangs_deaf(int x) {
  if (x == 0) {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
  }
  return first_hangs(x);
}

// ---- results of calls ----

struct Received {
  std::vector<std::string> words;  // in order: "3=ok", "0=cancelled/started"
  std::map<int, int> times;
  std::map<int, par::Error> errors;

  auto of(int x) {
    return [this, x](par::Result<int> r) {
      ++times[x];
      if (r) return words.push_back(std::to_string(x) + (*r == x ? "=ok" : "=wrong"));
      errors.emplace(x, r.error());
      words.push_back(std::to_string(x) + "=" + par::to_string(r.error().code()) + "/" +
                      par::to_string(r.error().delivery()));
    };
  }
  bool each_once(int calls) const {
    return static_cast<int>(times.size()) == calls &&
           std::all_of(times.begin(), times.end(), [](const auto& t) { return t.second == 1; });
  }
};

using Words = std::vector<std::string>;

bool run_until(par::Reactor& loop, const std::function<bool()>& condition) {
  return testing::eventually([&] {
    loop.run_for(milliseconds(1));
    return condition();
  });
}

// The child executes call `x`, and the parent knows the child.
template <class Remote>
bool is_at(par::Reactor& loop, const Remote& f, int x) {
  const par::Hold hold = loop.hold();
  return run_until(loop, [&] { return board->at == x && f.pid() != 0; });
}

par::Options with_grace(milliseconds grace) {
  par::Options options;
  options.grace = grace;
  return options;
}

}  // namespace

// ---- cancel ----

BOOST_AUTO_TEST_CASE(a_queued_call_is_removed, *testing::guarantee("3.1 3.2")) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_waits);
  std::vector<par::Call> calls;
  for (int x = 0; x < 4; ++x) calls.push_back(f(x, received.of(x)));
  BOOST_REQUIRE(is_at(loop, f, 0));
  calls[2].cancel();
  BOOST_TEST(received.words.empty());  // never from inside the call
  BOOST_REQUIRE(run_until(loop, [&] { return !received.words.empty(); }));
  BOOST_TEST(f.pending() == 3u);
  const pid_t pid = f.pid();
  board->go = 1;
  loop.run();
  BOOST_TEST(received.words == (Words{"2=cancelled/sent", "0=ok", "1=ok", "3=ok"}),
             boost::test_tools::per_element());
  BOOST_TEST(board->ran[2] == 0);
  BOOST_TEST(f.pid() == pid);
}

BOOST_AUTO_TEST_CASE(a_thousand_queued_calls_are_removed) {
  clear_board();
  par::Reactor loop;
  Received received;
  constexpr int count = 2001;
  auto f = par::run(loop, first_waits);
  std::vector<par::Call> calls;
  for (int x = 0; x < count; ++x) calls.push_back(f(x, received.of(x)));
  BOOST_REQUIRE(is_at(loop, f, 0));
  for (int x = 1; x < count; x += 2) calls[static_cast<std::size_t>(x)].cancel();
  board->go = 1;
  loop.run();
  BOOST_TEST(received.each_once(count));
  int ran = 0;
  for (int x = 0; x < count; ++x) {
    BOOST_REQUIRE(board->ran[x] == (x % 2 == 0 ? 1 : 0));
    ran += board->ran[x];
  }
  BOOST_TEST(ran == count / 2 + 1);
}

BOOST_AUTO_TEST_CASE(a_call_that_was_not_sent_is_removed) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run<par::DefaultIo, par::RawIo>(loop, [](std::string text) {
    const int x = text[0];
    note_run(x);
    while (x == 0 && board->go == 0) nap();
    return x;
  });
  std::vector<par::Call> calls;
  for (int x = 0; x < 4; ++x)
    calls.push_back(f(std::string(std::size_t{4} << 20, static_cast<char>(x)), received.of(x)));
  BOOST_REQUIRE(is_at(loop, f, 0));
  calls[3].cancel();
  board->go = 1;
  loop.run();
  BOOST_TEST(received.words == (Words{"3=cancelled/not_sent", "0=ok", "1=ok", "2=ok"}),
             boost::test_tools::per_element());
  BOOST_TEST(board->ran[3] == 0);
}

BOOST_AUTO_TEST_CASE(a_running_task_sees_its_cancellation_and_lives_on) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_listens, with_grace(std::chrono::hours(1)));
  const par::Call first = f(0, received.of(0));
  f(1, received.of(1));
  BOOST_REQUIRE(is_at(loop, f, 0));
  const pid_t pid = f.pid();
  first.cancel();
  loop.run();
  BOOST_TEST(received.words == (Words{"0=cancelled/started", "1=ok"}),
             boost::test_tools::per_element());
  BOOST_TEST(board->seen == 1);
  BOOST_TEST(f.pid() == pid);
}

BOOST_AUTO_TEST_CASE(a_task_that_ignores_its_cancellation_is_ended_without_effect_on_others,
                     *testing::guarantee("3.1 3.3 3.4")) {
  for (auto task : {first_hangs, first_hangs_deaf}) {
    clear_board();
    par::Reactor loop;
    Received received;
    auto f = par::run(loop, task, with_grace(milliseconds(20)));
    const par::Call first = f(0, received.of(0));
    for (int x = 1; x < 50; ++x) f(x, received.of(x));
    BOOST_REQUIRE(is_at(loop, f, 0));
    const pid_t pid = f.pid();
    first.cancel();
    loop.run();
    Words expected{"0=cancelled/started"};
    for (int x = 1; x < 50; ++x) expected.push_back(std::to_string(x) + "=ok");
    BOOST_TEST(received.words == expected, boost::test_tools::per_element());
    for (int x = 0; x < 50; ++x) BOOST_TEST(board->ran[x] == 1);
    BOOST_TEST(f.pid() != pid);
    BOOST_TEST(!testing::process_exists(pid));
  }
}

BOOST_AUTO_TEST_CASE(a_child_is_ended_even_if_the_loop_of_its_parent_hangs,
                     *testing::guarantee("3.3")) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_hangs_deaf, with_grace(milliseconds(20)));
  const par::Call first = f(0, received.of(0));
  BOOST_REQUIRE(is_at(loop, f, 0));
  const pid_t pid = f.pid();
  first.cancel();
  BOOST_TEST(testing::eventually([&] { return !testing::process_exists(pid); }));
  BOOST_TEST(received.words.empty());
  loop.run();
  BOOST_TEST(received.words == (Words{"0=cancelled/started"}), boost::test_tools::per_element());
}

// While its child is being ended, a Remote accepts calls; they come after the waiting ones.
BOOST_AUTO_TEST_CASE(calls_made_in_the_meantime_keep_their_order) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_hangs, with_grace(milliseconds(20)));
  const par::Call first = f(0, received.of(0));
  for (int x = 1; x < 10; ++x) f(x, received.of(x));
  BOOST_REQUIRE(is_at(loop, f, 0));
  first.cancel();
  int x = 10;
  par::Timer more;
  more = loop.every(milliseconds(1), [&] {
    if (x < 200) f(x, received.of(x));
    if (++x > 200) more = par::Timer{};
  });
  loop.run();
  Words expected{"0=cancelled/started"};
  for (int y = 1; y < 200; ++y) expected.push_back(std::to_string(y) + "=ok");
  BOOST_TEST(received.words == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_remote_may_be_closed_while_its_child_is_being_ended) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_hangs, with_grace(milliseconds(20)));
  const par::Call first = f(0, received.of(0));
  f(1, received.of(1));
  BOOST_REQUIRE(is_at(loop, f, 0));
  first.cancel();
  f.close();
  loop.run();
  BOOST_TEST(received.words == (Words{"0=cancelled/started", "1=ok"}),
             boost::test_tools::per_element());
  const pid_t pid = f.pid();
  BOOST_TEST(testing::eventually([&] { return pid == 0 || !testing::process_exists(pid); }));
}

BOOST_AUTO_TEST_CASE(a_call_that_is_over_is_not_cancelled) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_listens);
  par::Call late;
  late.cancel();  // has no call
  const par::Call call = f(1, received.of(1));
  loop.run();
  call.cancel();
  call.set_deadline(nanoseconds(0));
  loop.run();
  const par::Call twice = f(2, received.of(2));
  twice.cancel();
  twice.cancel();
  twice.set_deadline(nanoseconds(0));
  loop.run();
  f(3, [&](par::Result<int> r) {
    received.of(3)(std::move(r));
    late.cancel();  // itself
  });
  late = f(4, received.of(4));
  late = f(5, received.of(5));
  loop.run();
  BOOST_TEST(received.each_once(5));
  BOOST_TEST(received.words[0] == "1=ok");
  BOOST_TEST(received.words[1].find("2=cancelled") == 0);
  auto gone = par::run(loop, first_listens);
  const par::Call of_gone = gone(6, received.of(6));
  gone = {};
  of_gone.cancel();
  loop.run();
  BOOST_TEST(received.words.back().find("6=cancelled") == 0);
  of_gone.cancel();
}

// The snapshot has not yet reported that the child runs, and the child may have begun the call.
BOOST_AUTO_TEST_CASE(a_call_may_be_cancelled_before_the_child_is_known) {
  for (int i = 0; i < 20; ++i) {
    clear_board();
    par::Reactor loop;
    Received received;
    auto f = par::run(loop, first_hangs, with_grace(milliseconds(5)));
    const par::Call first = f(0, received.of(0));
    f(1, received.of(1));
    if (i % 2 == 0) testing::eventually([] { return board->at == 0; });
    first.cancel();
    loop.run();
    BOOST_TEST(received.words.size() == 2u);
    BOOST_TEST(received.words[0].find("0=cancelled") == 0);
    BOOST_TEST(received.words[1] == "1=ok");
  }
}

BOOST_AUTO_TEST_CASE(every_callback_may_cancel) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_waits);
  std::vector<par::Call> calls;
  calls.push_back(f(1, [&](par::Result<int> r) {
    received.of(1)(std::move(r));
    calls[2].cancel();
  }));
  calls.push_back(f(2, received.of(2)));
  calls.push_back(f(3, received.of(3)));
  loop.run();
  BOOST_TEST(received.each_once(3));
}

// ---- asynchronous tasks ----

namespace {

// Call 0 never answers, but its loop turns.
void first_sleeps(int x, par::Reply<int> reply) {
  note_run(x);
  if (x != 0) {
    reply(x);
    return;
  }
  static par::Timer timer;
  timer = par::this_reactor().every(milliseconds(1), [reply] {
    if (board->go != 0) reply(0);
    if (reply.cancelled()) ++board->seen;
  });
}

// Calls below 10 wait for ever; call 10 keeps the loop from turning.
void tenth_hangs(int x, par::Reply<int> reply) {
  note_run(x);
  static std::vector<par::Reply<int>> waiting;
  if (x < 10) waiting.push_back(reply);
  while (x == 10) nap();
  if (x > 10) reply(x);
}

}  // namespace

BOOST_AUTO_TEST_CASE(an_asynchronous_task_whose_loop_runs_is_not_killed) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_sleeps, with_grace(milliseconds(20)));
  const par::Call first = f(0, received.of(0));
  BOOST_REQUIRE(is_at(loop, f, 0));
  const pid_t pid = f.pid();
  // The snapshot decides only after the loop has had time to turn: that time does not depend on the child.
  const pid_t snapshot = par::default_snapshot().pid();
  ::kill(snapshot, SIGSTOP);
  BOOST_REQUIRE(testing::eventually([&] { return testing::state_of(snapshot) == 'T'; }));
  first.cancel();
  loop.run();
  BOOST_TEST(received.words == (Words{"0=cancelled/started"}), boost::test_tools::per_element());
  BOOST_TEST(testing::eventually([] { return board->seen > 100; }));
  ::kill(snapshot, SIGCONT);
  BOOST_TEST(testing::eventually([] { return board->seen > 200; }));  // long after the grace
  board->go = 1;                                                      // its late answer is dropped
  f(1, received.of(1));
  loop.run();
  BOOST_TEST(received.words == (Words{"0=cancelled/started", "1=ok"}),
             boost::test_tools::per_element());
  BOOST_TEST(f.pid() == pid);
}

BOOST_AUTO_TEST_CASE(an_asynchronous_task_whose_loop_hangs_is_ended) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, tenth_hangs, with_grace(milliseconds(20)));
  for (int x = 1; x < 10; ++x) f(x, received.of(x));
  const par::Call tenth = f(10, received.of(10));
  for (int x = 11; x < 20; ++x) f(x, received.of(x));
  BOOST_REQUIRE(is_at(loop, f, 10));
  tenth.cancel();
  loop.run();
  Words expected{"10=cancelled/started"};
  for (int x = 1; x < 10; ++x) expected.push_back(std::to_string(x) + "=child_killed/started");
  for (int x = 11; x < 20; ++x) expected.push_back(std::to_string(x) + "=ok");
  BOOST_TEST(received.words == expected, boost::test_tools::per_element());
  for (int x = 1; x < 20; ++x) BOOST_TEST(board->ran[x] == 1);
  const par::Error& reported = received.errors.at(1);
  BOOST_REQUIRE(reported.exit().has_value());
  BOOST_TEST((reported.exit()->cause == par::Cause::cancelled));
  BOOST_TEST(std::string(reported.what()).find("cancelled call") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_closed_asynchronous_remote_whose_loop_hangs_is_ended) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, tenth_hangs, with_grace(milliseconds(20)));
  const par::Call tenth = f(10, received.of(10));
  f.close();
  BOOST_REQUIRE(is_at(loop, f, 10));
  const pid_t pid = f.pid();
  tenth.cancel();
  loop.run();
  BOOST_TEST(received.words == (Words{"10=cancelled/started"}), boost::test_tools::per_element());
  BOOST_TEST(testing::eventually([&] { return !testing::process_exists(pid); }));
}

// ---- deadlines ----

// A call leaves after `deadline` has set its deadline: so the child begins no call before all have theirs.
BOOST_AUTO_TEST_CASE(a_deadline_travels_with_its_call) {
  par::Options two_hours;
  two_hours.deadline = std::chrono::hours(2);
  std::vector<long> left;
  for (const par::Options& options : {par::Options{}, two_hours}) {
    clear_board();
    par::Reactor loop;
    auto f = par::run(
        loop,
        [](int x) {
          first_waits(x);
          return static_cast<long>(
              std::chrono::duration_cast<milliseconds>(par::this_call::remaining()).count());
        },
        options);
    const auto note = [&](par::Result<long> r) { left.push_back(r.value()); };
    f(0, note);
    f(1, note).set_deadline(std::chrono::hours(1));
    board->go = 1;
    loop.run();
  }
  const long hour = 3600 * 1000;
  BOOST_REQUIRE(left.size() == 4u);
  BOOST_TEST(left[0] == std::chrono::duration_cast<milliseconds>(nanoseconds::max()).count());
  BOOST_TEST((left[1] > 0 && left[1] <= hour));
  BOOST_TEST((left[2] > hour && left[2] <= 2 * hour));
  BOOST_TEST((left[3] > 0 && left[3] <= hour));
}

BOOST_AUTO_TEST_CASE(this_call_outside_of_a_call_has_neutral_values) {
  BOOST_TEST(!par::this_call::cancelled());
  BOOST_TEST((par::this_call::remaining() == nanoseconds::max()));
  BOOST_TEST(par::this_call::id() == 0u);
  par::Reactor loop;
  auto f = par::run(loop, [](int) { return static_cast<int>(par::this_call::id()); });
  int id = 0;
  f(0, [](par::Result<int>) {});
  const par::Call call = f(0, [&](par::Result<int> r) { id = r.value(); });
  loop.run();
  BOOST_TEST(static_cast<std::uint64_t>(id) == call.id());
}

BOOST_AUTO_TEST_CASE(a_deadline_is_never_early, *testing::guarantee("3.1")) {
  clear_board();
  par::Reactor loop;
  auto f = par::run(loop, first_hangs, with_grace(milliseconds(1)));
  std::vector<nanoseconds> missed;
  for (int i = 0; i < 5; ++i) {
    loop.post([&] {
      const auto busy_until = Clock::now() + milliseconds(20);
      while (Clock::now() < busy_until) {}  // the cached time of libevent is old now
      const auto due = Clock::now() + milliseconds(10);
      f(0, [&missed, due](par::Result<int> r) {
        if (!r && r.error().code() == par::Errc::deadline) missed.push_back(Clock::now() - due);
      }).set_deadline(milliseconds(10));
    });
    loop.run();
  }
  BOOST_REQUIRE(missed.size() == 5u);
  for (const auto late : missed) BOOST_TEST((late >= nanoseconds(0)));
}

BOOST_AUTO_TEST_CASE(a_queued_call_whose_deadline_passes_does_not_disturb_the_child,
                     *testing::guarantee("3.2")) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_waits, with_grace(milliseconds(1)));
  f(0, received.of(0));
  f(1, received.of(1)).set_deadline(milliseconds(5));
  f(2, received.of(2));
  BOOST_REQUIRE(run_until(loop, [&] { return !received.words.empty() && f.pid() != 0; }));
  const pid_t pid = f.pid();
  BOOST_TEST(f.pending() == 2u);
  board->go = 1;
  loop.run();
  BOOST_TEST(received.words.size() == 3u);
  BOOST_TEST(received.words[0] == "1=deadline/sent");
  BOOST_TEST(received.words[1] == "0=ok");
  BOOST_TEST(received.words[2] == "2=ok");
  BOOST_TEST(board->ran[1] == 0);
  BOOST_TEST(f.pid() == pid);
}

// The child itself sees that the deadline has passed, even if the parent's loop has not turned meanwhile.
BOOST_AUTO_TEST_CASE(a_child_begins_no_call_whose_deadline_has_passed, *testing::guarantee("3.2")) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, first_waits);
  f(0, received.of(0));
  const auto due = Clock::now() + milliseconds(3);
  f(1, received.of(1)).set_deadline(milliseconds(3));
  f(2, received.of(2));
  BOOST_REQUIRE(testing::eventually([] { return board->at == 0; }));
  BOOST_REQUIRE(testing::eventually([&] { return Clock::now() > due + milliseconds(1); }));
  board->go = 1;
  BOOST_REQUIRE(testing::eventually([] { return board->at == 2; }));
  loop.run();
  BOOST_TEST(received.each_once(3));
  BOOST_TEST((received.errors.at(1).code() == par::Errc::deadline));
  BOOST_TEST(board->ran[1] == 0);
}

BOOST_AUTO_TEST_CASE(a_running_call_whose_deadline_passes_is_ended,
                     *testing::guarantee("3.1 3.3 3.4")) {
  for (auto task : {first_listens, first_hangs, first_hangs_deaf}) {
    clear_board();
    par::Reactor loop;
    Received received;
    auto f = par::run(loop, task, with_grace(milliseconds(task == first_listens ? 60000 : 20)));
    const par::Call first = f(0, received.of(0));
    for (int x = 1; x < 5; ++x) f(x, received.of(x));
    BOOST_REQUIRE(is_at(loop, f, 0));
    const pid_t pid = f.pid();
    first.set_deadline(milliseconds(10));
    loop.run();
    BOOST_REQUIRE(received.words.size() == 5u);
    BOOST_TEST(received.words[0] == "0=deadline/started");
    for (int x = 1; x < 5; ++x)
      BOOST_TEST(received.words[static_cast<std::size_t>(x)] == std::to_string(x) + "=ok");
    BOOST_TEST((f.pid() == pid) == (task == first_listens));
  }
}

BOOST_AUTO_TEST_CASE(a_deadline_of_a_call_replaces_the_default) {
  clear_board();
  par::Reactor loop;
  Received received;
  par::Options options = with_grace(milliseconds(10));
  options.deadline = milliseconds(5);
  auto f = par::run(loop, first_hangs, options);
  f(0, received.of(0));
  loop.run();
  BOOST_TEST(received.words[0].find("0=deadline") == 0);
  auto g = par::run(loop, first_waits, options);
  // In a callback: the call is sent after this turn, when its own deadline is set.
  loop.post([&] { g(0, received.of(1)).set_deadline(std::chrono::hours(1)); });
  int turns = 0;
  BOOST_TEST(run_until(loop, [&] { return ++turns > 50; }));  // far beyond the 5 ms
  BOOST_TEST(received.words.size() == 1u);
  board->go = 1;
  loop.run();
  BOOST_TEST(received.words.size() == 2u);
  BOOST_TEST(received.words[1] == "1=wrong");  // answered: with the number of the call, 0
}

BOOST_AUTO_TEST_CASE(a_process_may_have_a_deadline) {
  par::Reactor loop;
  par::Options options;
  for (const bool deaf : {false, true}) {
    // A child that reacts to the first signal has unlimited time to end.
    options.grace = deaf ? milliseconds(20) : std::chrono::hours(1);
    options.deadline = milliseconds(10);
    // Repeated with more time if the child had not come so far: the machine may be slow.
    for (bool came = false; !came;) {
      options.deadline *= 2;
      const auto start = Clock::now();
      auto p = par::process(
          loop,
          [deaf](par::Pipe<int, long> pipe) {
            if (deaf) ::signal(SIGTERM, SIG_IGN);
            const auto left = static_cast<long>(par::this_call::remaining().count());
            pipe.send(left);
            for (;;) ::pause();
          },
          options);
      Words events;
      p.on_message([&](long left) {
        came = left > 0;
        events.push_back(nanoseconds(left) <= options.deadline ? "left" : "wrong");
      });
      p.on_error([&](const par::Error& e) { events.push_back(par::to_string(e.code())); });
      p.on_end([&] { events.push_back("end"); });
      p.on_exit([&](const par::ExitStatus& s) {
        events.push_back(par::to_string(s.cause));
        events.push_back(std::to_string(s.signal()));
      });
      loop.run();
      if (!came) continue;
      BOOST_TEST(
          (Clock::now() - start >= options.deadline + (deaf ? options.grace : milliseconds(0))));
      BOOST_TEST(events == (Words{"left", "deadline", "end", "deadline",
                                  std::to_string(deaf ? SIGKILL : SIGTERM)}),
                 boost::test_tools::per_element());
    }
  }
}

// ---- calls that are made again ----

namespace {

// Ends its child in call 0, for the first `deaths` executions.
struct DiesInFirst {
  int deaths;
  int operator()(int x) const {
    note_run(x);
    if (x == 0 && board->ran[0] <= deaths) ::raise(SIGKILL);
    return x;
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_call_that_did_not_begin_is_repeated, *testing::guarantee("1.1")) {
  clear_board();
  par::Reactor loop;
  Received received;
  par::Options options;
  options.retries = 1;
  auto f = par::run(loop, DiesInFirst{1}, options);
  for (int x = 0; x < 20; ++x) f(x, received.of(x));
  loop.run();
  Words expected{"0=child_killed/started"};
  for (int x = 1; x < 20; ++x) expected.push_back(std::to_string(x) + "=ok");
  BOOST_TEST(received.words == expected, boost::test_tools::per_element());
  for (int x = 0; x < 20; ++x) BOOST_TEST(board->ran[x] == 1);
}

BOOST_AUTO_TEST_CASE(an_idempotent_call_is_repeated, *testing::guarantee("1.1")) {
  clear_board();
  par::Reactor loop;
  Received received;
  par::Options options;
  options.retries = 2;
  options.idempotent = true;
  auto f = par::run(loop, DiesInFirst{2}, options);
  for (int x = 0; x < 20; ++x) f(x, received.of(x));
  loop.run();
  Words expected;
  for (int x = 0; x < 20; ++x) expected.push_back(std::to_string(x) + "=ok");
  BOOST_TEST(received.words == expected, boost::test_tools::per_element());
  BOOST_TEST(board->ran[0] == 3);
}

BOOST_AUTO_TEST_CASE(retries_come_to_an_end) {
  clear_board();
  par::Reactor loop;
  Received received;
  par::Options options;
  options.retries = 3;
  options.idempotent = true;
  auto f = par::run(loop, DiesInFirst{1000}, options);
  for (int x = 0; x < 3; ++x) f(x, received.of(x));
  loop.run();
  BOOST_TEST(received.each_once(3));
  BOOST_TEST(received.words[0] == "0=child_killed/started");
  BOOST_TEST(board->ran[0] == 4);
}

BOOST_AUTO_TEST_CASE(retries_end_when_the_snapshot_is_lost) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  clear_board();
  par::Reactor loop;
  Received received;
  par::Options options;
  options.snapshot = &snapshot;
  options.retries = 2;
  auto f = par::run(loop, first_waits, options);
  f(1, received.of(1));
  loop.run();
  ::kill(snapshot.pid(), SIGKILL);
  par::Timer tick = loop.every(milliseconds(1), [&] {
    if (!snapshot.alive()) tick.cancel();
  });
  loop.run();
  for (int x = 2; x < 100; ++x) f(x, received.of(x));
  loop.run();
  BOOST_TEST(received.each_once(99));
  for (int x = 2; x < 100; ++x)
    BOOST_TEST((received.errors.at(x).code() == par::Errc::snapshot_lost));
}

BOOST_AUTO_TEST_CASE(each_call_without_retries_gets_the_death_of_its_child) {
  clear_board();
  par::Reactor loop;
  Received received;
  auto f = par::run(loop, DiesInFirst{1});
  loop.post([&] {
    for (int x = 0; x < 3; ++x) f(x, received.of(x));  // in one write, before the first ends it
  });
  loop.run();
  BOOST_TEST(received.words ==
                 (Words{"0=child_killed/started", "1=child_killed/sent", "2=child_killed/sent"}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_call_that_throws_is_not_repeated) {
  clear_board();
  par::Reactor loop;
  Received received;
  par::Options options;
  options.retries = 5;
  options.idempotent = true;
  auto f = par::run(
      loop,
      [](int x) -> int {
        note_run(x);
        throw std::runtime_error("no");
      },
      options);
  f(1, received.of(1));
  loop.run();
  BOOST_TEST(received.words[0] == "1=remote_exception/started");
  BOOST_TEST(board->ran[1] == 1);
}

// ---- all of it at once ----

BOOST_AUTO_TEST_CASE(random_cancels_and_deadlines_give_one_answer_each,
                     *testing::guarantee("3.4")) {
  std::mt19937 random(testing::seed(4711));
  constexpr int count = 1500;
  clear_board();
  // No two rounds share a number: a cancelled call may be begun after its round.
  for (int first = 0; first < 4 * count; first += count) {
    par::Reactor loop;
    par::Options options = with_grace(milliseconds(2));
    auto f = par::run(
        loop,
        [](int x) {
          note_run(x);
          while (x % 101 == 100) nap();  // hangs
          return x;
        },
        options);
    Received received;
    std::vector<par::Call> calls(count);
    int made = 0;
    par::Timer maker;
    maker = loop.every(milliseconds(1), [&] {
      for (int i = 0; i < 30 && made < count; ++i, ++made) {
        const auto slot = static_cast<std::size_t>(made);
        const int x = first + made;
        calls[slot] = f(x, received.of(x));
        const unsigned dice = static_cast<unsigned>(random() % 10);
        if (x % 101 == 100 || dice == 0)
          calls[slot].set_deadline(std::chrono::microseconds(random() % 3000));
        if (dice == 1) calls[slot].cancel();
        if (dice == 2) calls[random() % (slot + 1)].cancel();
      }
      if (made == count) maker = par::Timer{};
    });
    loop.run();
    BOOST_TEST(received.each_once(count));
    for (int x = 0; x < first + count; ++x)
      BOOST_REQUIRE_MESSAGE(board->ran[x] <= 1, x << " was begun again");
    for (const std::string& word : received.words) {
      const std::string what = word.substr(word.find('=') + 1);
      BOOST_REQUIRE_MESSAGE(
          what == "ok" || what.find("cancelled/") == 0 || what.find("deadline/") == 0, word);
    }
  }
}
