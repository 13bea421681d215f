// 61-faults.cpp - ends at a chosen frame or hop, and forks that fail: what the caller hears of them.
#include "testing.hpp"

#include "fault.hpp"

#include <evparallel/evparallel.hpp>

#include <pthread.h>

#include <cerrno>

namespace par = evparallel;

namespace {

using Strings = std::vector<std::string>;

// The child sends 1 to 10; what is told to happen to it, happens.
Strings events_of(par::Snapshot& snapshot, par::Faults faults) {
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto p = par::process<par::RawIo, par::RawIo>(
      loop,
      [faults](par::Pipe<int, int> pipe) {
        par::faults = faults;
        for (int i = 1; i <= 10; ++i) pipe.send(i);
        pipe.close();
      },
      options);
  Strings events;
  p.on_message([&](int x) { events.push_back(std::to_string(x)); });
  p.on_error([&](const par::Error& e) { events.push_back(e.what()); });
  p.on_end([&] { events.push_back("end"); });
  p.on_exit([&](const par::ExitStatus& s) { events.push_back(par::to_string(s.cause)); });
  p.close();
  loop.run();
  return events;
}

Strings head(int messages) {
  Strings events;
  for (int i = 1; i <= messages; ++i) events.push_back(std::to_string(i));
  return events;
}

}  // namespace

BOOST_AUTO_TEST_CASE(death_at_each_message) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  for (int k = 1; k <= 10; ++k) {
    par::Faults faults;
    faults.armed = true;
    faults.die_at_frame = static_cast<std::uint64_t>(k);
    const Strings events = events_of(snapshot, faults);
    BOOST_REQUIRE(events.size() == static_cast<std::size_t>(k - 1 + 3));
    BOOST_TEST(Strings(events.begin(), events.begin() + k - 1) == head(k - 1),
               boost::test_tools::per_element());
    BOOST_TEST(events[events.size() - 3].find("was killed by SIGKILL") != std::string::npos);
    BOOST_TEST(events[events.size() - 2] == "end");
    BOOST_TEST(events.back() == "crash");
  }
}

BOOST_AUTO_TEST_CASE(a_frame_torn_at_every_byte) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  for (std::size_t at = 0; at < 20; ++at) {
    par::Faults faults;
    faults.armed = true;
    faults.cut_frame = 3;
    faults.cut_to = at;
    const Strings events = events_of(snapshot, faults);
    BOOST_REQUIRE(events.size() == 5u);
    BOOST_TEST(events[0] == "1");
    BOOST_TEST(events[1] == "2");
    const char* says = at == 0 ? "SIGKILL" : "ended inside a frame";
    BOOST_TEST(events[2].find(says) != std::string::npos, at << ": " << events[2]);
    BOOST_TEST(events[3] == "end");
    BOOST_TEST(events[4] == "crash");
  }
}

BOOST_AUTO_TEST_CASE(no_fault_no_change) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  Strings expected = head(10);
  expected.insert(expected.end(), {"end", "normal"});
  BOOST_TEST(events_of(snapshot, par::Faults{}) == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_snapshot_that_cannot_be_forked_is_told) {
  par::faults.armed = true;
  par::faults.fork_errno = EAGAIN;
  par::faults.fork_failures = 1;
  std::optional<par::Error> error;
  try {
    par::Snapshot snapshot;
  } catch (const par::Error& e) {
    error = e;
  }
  par::faults = par::Faults{};
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::spawn_failed));
  BOOST_TEST(error->os_error() == EAGAIN);
  par::Snapshot snapshot;  // the next one can
  BOOST_TEST(snapshot.alive());
}

BOOST_AUTO_TEST_CASE(a_call_whose_answer_is_torn_hears_how_its_child_died) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto f = par::run(
      loop,
      [](int x) {
        par::faults.armed = true;
        par::faults.cut_frame = 2;
        par::faults.cut_to = 16;
        return x;
      },
      options);
  Strings heard;
  for (int i = 0; i < 3; ++i)
    f(i,
      [&](par::Result<int> r) { heard.push_back(r ? "value" : par::to_string(r.error().code())); });
  loop.run();
  BOOST_TEST(heard == (Strings{"value", "child_killed", "child_killed"}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_task_may_choose_what_happens_to_it_and_where) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::HopFault fault;
  fault.deed = par::Deed::exit_3;
  fault.hop = par::Hop::put;
  fault.role = par::Role::child;
  fault.passage = 4;
  par::Faults faults;
  faults.armed = true;
  faults.at_hop = fault;
  Strings events = events_of(snapshot, faults);
  BOOST_REQUIRE(events.size() == 6u);
  BOOST_TEST(Strings(events.begin(), events.begin() + 3) == head(3),
             boost::test_tools::per_element());
  BOOST_TEST(events[3].find("exited with status 3") != std::string::npos);
  BOOST_TEST(events[4] == "end");
  BOOST_TEST(events[5] == "error");
  // Another process's fault, and another child's, are none of its own.
  faults.at_hop.role = par::Role::snapshot;
  BOOST_TEST(events_of(snapshot, faults).back() == "normal");
  faults.at_hop.role = par::Role::child;
  faults.at_hop.child = 7;
  BOOST_TEST(events_of(snapshot, faults).back() == "normal");
}

BOOST_AUTO_TEST_CASE(of_all_children_the_one_that_was_meant) {
  par::faults.armed = true;
  par::faults.at_hop.deed = par::Deed::crash;
  par::faults.at_hop.hop = par::Hop::live;
  par::faults.at_hop.role = par::Role::child;
  par::faults.at_hop.child = 2;
  par::Snapshot snapshot;
  const par::Faults inherited = par::faults;
  par::faults = par::Faults{};
  testing::allow_descriptors(1);
  Strings ends;
  for (int i = 0; i < 3; ++i) ends.push_back(events_of(snapshot, inherited).back());
  BOOST_TEST(ends == (Strings{"normal", "crash", "normal"}), boost::test_tools::per_element());
}

namespace {

// What a snapshot is born with.
par::Faults faults_of_snapshot;

// Its first forks fail.  Set in its copy, since the parent's own fork must not fail of it.
par::Snapshot snapshot_without_fork(int error, unsigned failures) {
  static const int installed = ::pthread_atfork(
      nullptr, nullptr, [] { par::faults = std::exchange(faults_of_snapshot, par::Faults{}); });
  if (installed != 0) throw std::runtime_error("pthread_atfork");
  faults_of_snapshot.armed = true;
  faults_of_snapshot.fork_errno = error;
  faults_of_snapshot.fork_failures = failures;
  par::Snapshot snapshot;
  faults_of_snapshot = par::Faults{};
  testing::allow_descriptors(1);
  return snapshot;
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

BOOST_AUTO_TEST_CASE(a_call_hears_that_its_child_could_not_be_forked) {
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

// A call that could not even get a child is made again.
BOOST_AUTO_TEST_CASE(retries_where_the_fork_fails) {
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
