// hops.cpp - an end at every failpoint of a call, for each process that passes it; and ends that reach the parent in an
// unusual order: a report without end of file, an end of file without report.
#include "cell.hpp"
#include "elsewhere.hpp"
#include "calling.hpp"
#include "shard.hpp"
#include "stage.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>

namespace {

namespace par = evparallel;
using namespace cell;

// ---- which process passes which failpoint ---------------------------------------------------------

bool is_one_of(Failpoint failpoint, std::initializer_list<Failpoint> set) {
  return std::find(set.begin(), set.end(), failpoint) != set.end();
}

bool passed_by_caller(Failpoint failpoint, Use use) {
  // Only a process waits for the report of the end of its child.
  if (is_one_of(failpoint, {Failpoint::exit_report, Failpoint::ended})) return use == Use::process;
  if (failpoint == Failpoint::finish) return use != Use::process;
  return is_one_of(failpoint, {Failpoint::run, Failpoint::spawn, Failpoint::ask, Failpoint::send,
                               Failpoint::sent, Failpoint::encode, Failpoint::put, Failpoint::write,
                               Failpoint::written, Failpoint::read, Failpoint::decode,
                               Failpoint::callback, Failpoint::take});
}

bool passed_by_worker(Failpoint failpoint) {
  return is_one_of(failpoint,
                   {Failpoint::child_main, Failpoint::read, Failpoint::task, Failpoint::decode,
                    Failpoint::call, Failpoint::encode, Failpoint::put, Failpoint::write,
                    Failpoint::written, Failpoint::drain, Failpoint::leave});
}

bool is_passed(Failpoint failpoint, Use use, Target target) {
  const bool nested = use == Use::nested;
  switch (target) {
    case Target::parent:  // forks the snapshot
      return passed_by_caller(failpoint, use) ||
             is_one_of(failpoint, {Failpoint::fork, Failpoint::forked});
    case Target::snapshot:
      if (failpoint == Failpoint::rendezvous) return nested;
      return is_one_of(failpoint, {Failpoint::turn, Failpoint::serve, Failpoint::fork,
                                   Failpoint::forked, Failpoint::reap, Failpoint::report});
    case Target::child:  // of a nested use: executes a call, and makes one
      if (!nested) return passed_by_worker(failpoint);
      return passed_by_worker(failpoint) || passed_by_caller(failpoint, use) ||
             failpoint == Failpoint::connect_to_snapshot;
    default: return nested && passed_by_worker(failpoint);
  }
}

// ---- running the cells ----------------------------------------------------------------------------

constexpr Use uses[] = {Use::run, Use::process, Use::nested};
constexpr Target targets[] = {Target::parent, Target::snapshot, Target::child, Target::grandchild};

// In a nested use the second hit is that for the grandchild.
std::uint64_t hits(Failpoint failpoint, Use use, Target target) {
  return use == Use::nested && target == Target::snapshot && failpoint != Failpoint::rendezvous ? 2
                                                                                                : 1;
}

std::vector<Cell> ends_by(Action action) {
  std::vector<Cell> all;
  for (const Use use : uses) {
    for (const Target target : targets) {
      for (std::size_t i = 0; i < failpoints::count; ++i) {
        const Failpoint failpoint = static_cast<Failpoint>(i);
        if (!is_passed(failpoint, use, target)) continue;
        for (std::uint64_t k = 1; k <= hits(failpoint, use, target); ++k)
          all.push_back({use, target, action, Moment::at_failpoint, failpoint, k});
      }
    }
  }
  return all;
}

// Each shard runs a part of the ends.
void check_all(Action action) {
  const testing::Shard shard = testing::own_shard();
  const std::vector<Cell> cells = ends_by(action);
  std::size_t count = 0;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    if (!shard.has(i)) continue;
    testing::limit();  // the limit of this end
    const Verdict verdict = play(cells[i], allowed_anywhere);
    BOOST_TEST(verdict.complaints.empty(), name_of(cells[i]) << verdict.text());
    BOOST_TEST(verdict.done, name_of(cells[i]) << ": it was never passed");
    ++count;
  }
  remark(std::to_string(count) + " of " + std::to_string(cells.size()) + " ends");
  BOOST_TEST(count > 0);
}

}  // namespace

BOOST_AUTO_TEST_CASE(every_failpoint_is_passed_by_a_process) {
  for (std::size_t i = 0; i < failpoints::count; ++i) {
    bool passed = false;
    for (const Use use : uses)
      for (const Target target : targets)
        passed = passed || is_passed(static_cast<Failpoint>(i), use, target);
    BOOST_TEST(passed, name_of(static_cast<Failpoint>(i)));
  }
}

BOOST_AUTO_TEST_CASE(a_process_may_be_killed_at_any_failpoint) {
  check_all(Action::kill);
}
BOOST_AUTO_TEST_CASE(a_process_may_be_stopped_at_any_failpoint_and_then_killed) {
  check_all(Action::stop_then_kill);
}
BOOST_AUTO_TEST_CASE(a_socket_may_be_closed_at_any_failpoint) {
  check_all(Action::close);
}
BOOST_AUTO_TEST_CASE(a_process_may_exit_at_any_failpoint) {
  check_all(Action::exit_3);
}

// ---- ends in an unusual order ---------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(an_exit_report_may_come_without_an_end_of_file, *testing::guarantee("2.1")) {
  // A process that the task has started holds its socket; the snapshot cannot reach that process.
  const int status = testing::elsewhere([] {
    par::init();
    par::Reactor loop;
    auto p = par::process<par::RawIo, par::RawIo>(loop, [](par::Pipe<int, int> pipe) {
      const pid_t holder = ::fork();
      if (holder == 0) {
        ::setsid();
        for (;;) ::pause();
      }
      while (::getsid(holder) != holder) ::poll(nullptr, 0, 1);
      pipe.send(static_cast<int>(holder));
      ::exit(3);
    });
    pid_t holder = 0;
    std::string events;
    p.on_message([&](int pid) { holder = pid; });
    p.on_error([&](const par::Error& e) { events += par::to_string(e.code()); });
    p.on_end([&] { events += " end"; });
    p.on_exit([&](const par::ExitStatus& s) { events += " exit " + std::to_string(s.code()); });
    loop.run();
    const bool held = holder > 0 && testing::process_exists(holder);
    if (holder > 0) ::kill(holder, SIGKILL);
    return held && events == "child_exited end exit 3" ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

namespace {

// For snapshots that are taken from now on.
failpoints::Trigger& load_for_snapshots(failpoints::Action action, Failpoint failpoint) {
  failpoints::Fault fault;
  fault.action = action;
  fault.failpoint = failpoint;
  fault.victim = failpoints::Victim::snapshot;
  fault.trigger = &testing::shared<failpoints::Trigger>();
  failpoints::load(fault);
  return *fault.trigger;
}

// A child ends while its snapshot is stopped, so that there is no report of the end.  Then the snapshot gets `signum`.
// Returns the events of the caller before and after.
std::string end_of_file_without_report(int signum) {
  failpoints::Trigger& trigger = load_for_snapshots(failpoints::Action::stop, Failpoint::reap);
  trigger.active = true;
  par::init();
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(
      loop, [](par::Pipe<int, int> pipe) { pipe.on_message([](int code) { ::_exit(code); }); });
  std::string events;
  p.on_error([&](const par::Error& e) { events += par::to_string(e.code()); });
  p.on_end([&] { events += " end"; });
  p.on_exit([&](const par::ExitStatus& s) {
    events += s.cause == par::Cause::error ? " exit " + std::to_string(s.code())
                                           : std::string(" ") + par::to_string(s.cause);
  });
  p.send(3);
  while (trigger.done_by == 0 || testing::state_of(trigger.done_by) != 'T')
    loop.run_for(std::chrono::milliseconds(1));
  testing::turn(loop, 20);  // the end of file has come
  events += "; ";
  ::kill(par::default_snapshot().pid(), signum);
  loop.run();
  return events;
}

}  // namespace

BOOST_AUTO_TEST_CASE(an_end_of_file_may_come_without_an_exit_report, *testing::guarantee("2.1")) {
  const int goes_on = testing::elsewhere(
      [] { return end_of_file_without_report(SIGCONT) == "; child_exited end exit 3" ? 0 : 1; });
  BOOST_TEST(goes_on == 0);
  const int dies = testing::elsewhere([] {
    return end_of_file_without_report(SIGKILL) == "; snapshot_lost end snapshot_lost" ? 0 : 1;
  });
  BOOST_TEST(dies == 0);
}

// Otherwise a slow start of one replica would decide which one has the fault.
BOOST_AUTO_TEST_CASE(a_fault_for_one_replica_does_not_affect_another) {
  const int status = testing::elsewhere([] {
    failpoints::Trigger& trigger = load_for_snapshots(failpoints::Action::exit_3, Failpoint::turn);
    par::SnapshotOptions two;
    two.replicas = 2;
    par::Snapshot snapshot(two);
    const pid_t chosen = snapshot.pids().at(1);
    pid_t lost = 0;
    par::Reactor loop;
    const par::Hold hold = loop.hold();  // a loss is reported even if no call is pending
    snapshot.on_lost([&](const par::ExitStatus& how) { lost = how.pid; });
    trigger.taken_by = chosen;
    trigger.active = true;
    // The first replica handles this call, and lives on.
    par::Options options;
    options.snapshot = &snapshot;
    auto f = par::run(
        loop, [] { return ::getppid(); }, options);
    pid_t asked = 0;
    f([&](par::Result<pid_t> r) { asked = r.value_or(-1); });
    while (asked == 0) loop.run_for(std::chrono::milliseconds(1));
    if (asked != snapshot.pid() || trigger.done_by == asked) return 1;
    // If the first turn of the replica was late, the action already happened there.
    if (trigger.done_by == 0) ::kill(chosen, SIGCONT);
    while (lost == 0) loop.run_for(std::chrono::milliseconds(1));
    return lost == chosen && trigger.done_by == chosen ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_client_that_connects_while_the_snapshot_ends_is_refused) {
  // The parent is dead, and its snapshot waits for the children: a child that asks for a child of its own must not wait
  // with it.
  int said[2];
  BOOST_REQUIRE(::pipe(said) == 0);
  const pid_t program = ::fork();
  if (program == 0) {
    static int to = said[1];
    static pid_t parent = ::getpid();
    par::init();
    par::Reactor loop;
    auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
      pipe.send(0);
      while (testing::state_of(parent) != 'Z') ::poll(nullptr, 0, 1);
      auto f = par::run(par::this_reactor(), [] { return 1; });
      f([](par::Result<int> r) {
        const int code = r ? 0 : static_cast<int>(r.error().code());
        if (::write(to, &code, sizeof code) < 0) ::_exit(1);
      });
      par::this_reactor().run();
    });
    p.on_message([](int) { ::_exit(0); });
    loop.run();
    ::_exit(1);
  }
  ::close(said[1]);
  int code = -1;
  const ssize_t size = ::read(said[0], &code, sizeof code);
  ::close(said[0]);
  ::waitpid(program, nullptr, 0);
  BOOST_TEST(size == static_cast<ssize_t>(sizeof code));
  // The code depends on whether the rendezvous socket was already closed.
  BOOST_TEST((code == static_cast<int>(par::Errc::snapshot_lost) ||
              code == static_cast<int>(par::Errc::overloaded)));
}

BOOST_AUTO_TEST_CASE(events_deferred_by_a_stop_do_not_reach_a_destroyed_handle) {
  // Callbacks that stop the loop interrupt the reports of the end of a child; its Remote is destroyed between two of
  // them.
  for (int drop_at = 1; drop_at <= 9; ++drop_at) {
    const int status = testing::elsewhere([drop_at] {
      par::init();
      par::Reactor loop;
      auto f = par::run<par::RawIo, par::RawIo>(loop, [](int x) {
        if (x == 10) ::_exit(3);
        return x;
      });
      int received = 0;
      for (int i = 0; i <= 10; ++i)
        f(i, [&](par::Result<int>) {
          ++received;
          loop.stop();
        });
      while (received < drop_at) loop.run_for(std::chrono::milliseconds(1));
      f = {};
      while (received < 11) loop.run_for(std::chrono::milliseconds(1));
      return 0;
    });
    BOOST_TEST(status == 0);
  }
}
