// faults.cpp - errors that the caller gets when a plan of faults takes effect: ends at a chosen message, failed forks,
// a dead snapshot; and ends at a chosen failpoint.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "failpoint_actions.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>

#include <cerrno>
#include <chrono>
#include <stdexcept>

namespace par = evparallel;
using testing::in;
namespace fault = par::fault;
using Clock = std::chrono::steady_clock;

namespace {

using Strings = std::vector<std::string>;

// A snapshot that has the plan, as do its children; the program has disarmed it.
par::Snapshot snapshot_with(const fault::Plan& plan) {
  const fault::Armed armed(plan);
  testing::allow_descriptors(1);
  return par::Snapshot();
}

// The events of a child that calls `before`, and then sends 1 to 10.
template <class Before>
Strings events_of(par::Snapshot& snapshot, Before before) {
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(
      loop,
      [before](par::Pipe<int, int> pipe) {
        before();
        for (int i = 1; i <= 10; ++i) pipe.send(i);
        pipe.close();
      },
      in(snapshot));
  Strings events;
  p.on_message([&](int x) { events.push_back(std::to_string(x)); });
  p.on_error([&](const par::Error& e) { events.push_back(e.what()); });
  p.on_end([&] { events.push_back("end"); });
  p.on_exit([&](const par::ExitStatus& s) { events.push_back(par::to_string(s.cause)); });
  p.close();
  loop.run();
  return events;
}

Strings events_of(par::Snapshot& snapshot, const fault::Plan& plan) {
  return events_of(snapshot, [plan] { fault::arm(plan); });
}
Strings events_of(par::Snapshot& snapshot) {
  return events_of(snapshot, [] {});
}

Strings head(int messages) {
  Strings events;
  for (int i = 1; i <= messages; ++i) events.push_back(std::to_string(i));
  return events;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_child_dies_at_any_message) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  for (int k = 1; k <= 10; ++k) {
    fault::Plan plan;
    plan.die_at_message = static_cast<std::uint64_t>(k);
    const Strings events = events_of(snapshot, plan);
    BOOST_REQUIRE(events.size() == static_cast<std::size_t>(k - 1 + 3));
    BOOST_TEST(Strings(events.begin(), events.begin() + k - 1) == head(k - 1),
               boost::test_tools::per_element());
    BOOST_TEST(events[events.size() - 3].find("was killed by SIGKILL") != std::string::npos);
    BOOST_TEST(events[events.size() - 2] == "end");
    BOOST_TEST(events.back() == "crash");
  }
}

BOOST_AUTO_TEST_CASE(a_frame_torn_at_any_byte_is_handled) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  for (std::size_t at = 0; at < 20; ++at) {
    fault::Plan plan;
    plan.cut_message = 3;
    plan.cut_to = at;
    const Strings events = events_of(snapshot, plan);
    BOOST_REQUIRE(events.size() == 5u);
    BOOST_TEST(events[0] == "1");
    BOOST_TEST(events[1] == "2");
    const char* says = at == 0 ? "SIGKILL" : "ended inside a frame";
    BOOST_TEST(events[2].find(says) != std::string::npos, at << ": " << events[2]);
    BOOST_TEST(events[3] == "end");
    BOOST_TEST(events[4] == "crash");
  }
}

BOOST_AUTO_TEST_CASE(an_empty_plan_changes_nothing) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  Strings expected = head(10);
  expected.insert(expected.end(), {"end", "normal"});
  BOOST_TEST(events_of(snapshot) == expected, boost::test_tools::per_element());
  BOOST_TEST(events_of(snapshot, fault::Plan{}) == expected, boost::test_tools::per_element());
  const auto disarmed = [] {
    fault::Plan plan;
    plan.die_at_message = 2;
    fault::arm(plan);
    fault::disarm();
  };
  BOOST_TEST(events_of(snapshot, disarmed) == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_plan_is_inherited_and_counts_from_zero_in_each_child) {
  fault::Plan plan;
  plan.die_at_message = 3;
  par::Snapshot snapshot = snapshot_with(plan);
  for (int i = 0; i < 3; ++i) {
    const Strings events = events_of(snapshot);
    BOOST_REQUIRE(events.size() == 5u);
    BOOST_TEST(events[1] == "2");
    BOOST_TEST(events[2].find("SIGKILL") != std::string::npos);
  }
  par::Snapshot later;  // taken when nothing is armed any more
  testing::allow_descriptors(1);
  BOOST_TEST(events_of(later).back() == "normal");
}

BOOST_AUTO_TEST_CASE(only_the_chosen_child_has_the_fault) {
  fault::Plan plan;
  plan.child = 2;
  plan.die_at_message = 1;
  par::Snapshot snapshot = snapshot_with(plan);
  Strings ends;
  for (int i = 0; i < 3; ++i) ends.push_back(events_of(snapshot).back());
  BOOST_TEST(ends == (Strings{"normal", "crash", "normal"}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_message_is_delayed) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(
      loop,
      [](par::Pipe<int, std::int64_t> pipe) {
        fault::Plan plan;
        plan.delay_message = 2;
        plan.delay = std::chrono::milliseconds(30);
        fault::arm(plan);
        for (int i = 0; i < 3; ++i) {
          const auto start = Clock::now();
          pipe.send(0);
          const auto took = Clock::now() - start;
          fault::disarm();  // this report is not part of the plan
          pipe.send(std::chrono::nanoseconds(took).count());
          fault::arm(plan);
          if (i == 0) pipe.send(0);  // the first message that counts
        }
        pipe.close();
      },
      in(snapshot));
  std::vector<std::int64_t> reported;
  p.on_message([&](std::int64_t x) { reported.push_back(x); });
  p.close();
  loop.run();
  BOOST_REQUIRE(reported.size() == 7u);
  BOOST_TEST(reported[4] >= 30000000);  // before the second one
  BOOST_TEST((reported[0] == 0 && reported[2] == 0 && reported[3] == 0));
}

BOOST_AUTO_TEST_CASE(a_fault_applies_to_the_messages_of_the_parent) {
  for (const int calls : {2, 3}) {
    const int status = testing::elsewhere([calls] {
      par::init();
      par::Reactor loop;
      auto f = par::run(loop, [](int x) { return x; });
      fault::Plan plan;
      plan.victim = fault::Victim::parent;
      plan.die_at_message = 3;
      fault::arm(plan);
      int answers = 0;
      for (int i = 0; i < calls; ++i)
        f(i, [&answers, i](par::Result<int> r) { answers += r.value() == i; });
      loop.run();
      return answers;
    });
    BOOST_TEST(status == (calls == 2 ? 2 : 100 + SIGKILL));
  }
}

BOOST_AUTO_TEST_CASE(a_snapshot_dies_at_a_fork) {
  fault::Plan plan;
  plan.victim = fault::Victim::snapshot;
  plan.die_at_fork = 2;
  par::Snapshot snapshot = snapshot_with(plan);
  par::Reactor loop;
  const auto waits = [](par::Pipe<int, int> pipe) {
    pipe.on_message([pipe](int x) { pipe.send(x); });
  };
  auto first = par::process<par::RawIo, par::RawIo>(loop, waits, in(snapshot));
  Strings events;
  const auto note = [&](par::Process<int, int>& p, const std::string& name) {
    p.on_error([&events, name](const par::Error& e) {
      events.push_back(name + " " + par::to_string(e.code()));
    });
    p.on_exit([&events, name](const par::ExitStatus& s) {
      events.push_back(name + " " + par::to_string(s.cause));
    });
  };
  note(first, "first");
  first.on_message([&](int) { loop.stop(); });
  first.send(1);
  loop.run();
  BOOST_TEST(events.empty());
  auto second = par::process<par::RawIo, par::RawIo>(loop, waits, in(snapshot));
  note(second, "second");
  loop.run();
  std::sort(events.begin(), events.end());
  BOOST_TEST(events == (Strings{"first snapshot_lost", "first snapshot_lost",
                                "second snapshot_lost", "second snapshot_lost"}),
             boost::test_tools::per_element());
  BOOST_TEST(!snapshot.alive());
}

BOOST_AUTO_TEST_CASE(an_impossible_plan_is_misuse) {
  const auto refused = [](auto change) {
    fault::Plan plan;
    change(plan);
    try {
      fault::arm(plan);
    } catch (const std::logic_error& error) {
      return std::string(error.what());
    }
    fault::disarm();
    return std::string();
  };
  using fault::Plan;
  using fault::Victim;
  const auto as = [](Victim victim, auto change) {
    return [victim, change](Plan& plan) {
      plan.victim = victim;
      change(plan);
    };
  };
  const auto die = [](Plan& plan) { plan.die_at_message = 1; };
  const auto fork = [](Plan& plan) { plan.fork_failures = 1; };
  const auto at_fork = [](Plan& plan) { plan.die_at_fork = 1; };
  BOOST_TEST(testing::has(refused(as(Victim::snapshot, die)), "no messages"));
  BOOST_TEST(
      testing::has(refused(as(Victim::child, at_fork)), "the snapshot forks, not the child"));
  BOOST_TEST(testing::has(refused(as(Victim::snapshot, fork)),
                          "fork_failures is set, but fork_errno is not"));
  BOOST_TEST(testing::has(refused(as(Victim::parent, [](Plan& p) { p.child = 1; })),
                          "the victim is not a child"));
  BOOST_TEST(testing::has(refused([](Plan& p) { p.delay = std::chrono::milliseconds(-1); }),
                          "fault::Plan::delay is negative"));
  BOOST_TEST(refused(die) == "");
  BOOST_TEST(refused(as(Victim::snapshot, at_fork)) == "");
  // A refused plan is not armed.
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  BOOST_TEST(events_of(snapshot).back() == "normal");
}

BOOST_AUTO_TEST_CASE(a_snapshot_that_cannot_be_forked_is_an_error) {
  fault::Plan plan;
  plan.victim = fault::Victim::parent;
  plan.fork_failures = 1;
  plan.fork_errno = EAGAIN;
  const fault::Armed armed(plan);
  const auto error = testing::error_of([] { par::Snapshot snapshot; });
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::spawn_failed));
  BOOST_TEST(error->os_error() == EAGAIN);
  par::Snapshot snapshot;  // the next snapshot can be taken
  BOOST_TEST(snapshot.alive());
}

BOOST_AUTO_TEST_CASE(a_call_with_a_torn_answer_gets_an_error_and_the_end_of_its_child) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto f = par::run(
      loop,
      [](int x) {
        if (x > 0) return x;
        fault::Plan plan;
        plan.cut_message = 2;
        plan.cut_to = 16;
        fault::arm(plan);
        return x;
      },
      options);
  Strings received;
  for (int i = 0; i < 3; ++i)
    f(i, [&](par::Result<int> r) {
      received.push_back(r ? "value" : par::to_string(r.error().code()));
    });
  loop.run();
  BOOST_TEST(received == (Strings{"value", "bad_message", "child_killed"}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_task_may_arm_a_fault_for_itself) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  failpoints::Fault wanted;
  wanted.action = failpoints::Action::exit_3;
  wanted.failpoint = failpoints::Failpoint::put;
  wanted.victim = failpoints::Victim::child;
  wanted.hit = 4;
  const auto with = [&](const failpoints::Fault& chosen) {
    return events_of(snapshot, [chosen] { failpoints::load(chosen); });
  };
  const Strings events = with(wanted);
  BOOST_REQUIRE(events.size() == 6u);
  BOOST_TEST(Strings(events.begin(), events.begin() + 3) == head(3),
             boost::test_tools::per_element());
  BOOST_TEST(events[3].find("exited with status 3") != std::string::npos);
  BOOST_TEST(events[4] == "end");
  BOOST_TEST(events[5] == "error");
  // The fault of another process, or of another child, has no effect here.
  failpoints::Fault others = wanted;
  others.victim = failpoints::Victim::snapshot;
  BOOST_TEST(with(others).back() == "normal");
  others = wanted;
  others.child = 7;
  BOOST_TEST(with(others).back() == "normal");
}

namespace {

par::Snapshot snapshot_without_fork(int error, unsigned failures) {
  fault::Plan plan;
  plan.victim = fault::Victim::snapshot;
  plan.fork_failures = failures;
  plan.fork_errno = error;
  return snapshot_with(plan);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_fork_that_fails_in_the_snapshot_fails_one_spawn_and_passes) {
  for (const int error : {EAGAIN, ENOMEM}) {
    par::Snapshot snapshot = snapshot_without_fork(error, 1);
    const std::string failed = "spawn_failed " + std::to_string(error);
    for (const Strings& expected :
         {Strings{failed, "end", "not_started"}, Strings{"end", "normal"}}) {
      par::Reactor loop;
      par::Options options;
      options.snapshot = &snapshot;
      auto p = par::process(
          loop, [](par::Pipe<int, int>) {}, options);
      Strings events;
      p.on_error([&](const par::Error& e) {
        events.push_back(par::to_string(e.code()) + std::string(" ") +
                         std::to_string(e.os_error()));
      });
      p.on_end([&] { events.push_back("end"); });
      p.on_exit([&](const par::ExitStatus& s) { events.push_back(par::to_string(s.cause)); });
      p.close();
      loop.run();
      BOOST_TEST(events == expected, boost::test_tools::per_element());
    }
  }
}

BOOST_AUTO_TEST_CASE(a_call_fails_if_its_child_cannot_be_forked) {
  par::Snapshot snapshot = snapshot_without_fork(ENOMEM, 1000);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto f = par::run(
      loop, [](int x) { return x; }, options);
  std::vector<par::Error> errors;
  for (int x = 0; x < 3; ++x) f(x, [&](par::Result<int> r) { errors.push_back(r.error()); });
  loop.run();
  BOOST_TEST(errors.size() == 3u);
  for (const par::Error& error : errors) {
    BOOST_TEST((error.code() == par::Errc::spawn_failed));
    BOOST_TEST((error.delivery() == par::Delivery::not_sent));
    BOOST_TEST(error.os_error() == ENOMEM);
  }
}

// A call whose child could not be forked is made again.
BOOST_AUTO_TEST_CASE(a_failed_fork_is_retried) {
  par::Snapshot snapshot = snapshot_without_fork(EAGAIN, 2);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  options.retries = 2;
  auto f = par::run(
      loop, [](int x) { return x; }, options);
  std::vector<int> answers;
  for (int x = 0; x < 5; ++x) f(x, [&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  BOOST_TEST(answers == (std::vector<int>{0, 1, 2, 3, 4}), boost::test_tools::per_element());
}
