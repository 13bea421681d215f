// snapshots.cpp - several snapshots at once, and handles in processes that do not own them.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <event2/event.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>

namespace par = evparallel;
using testing::ask;
using testing::descriptors_of;
using testing::error_of;
using testing::gone;
using testing::in;
using testing::misuse_of;
using namespace std::chrono_literals;

namespace {

bool says(const std::optional<par::Error>& error, par::Errc code, const std::string& what) {
  return error && error->code() == code &&
         std::string(error->what()).find(what) != std::string::npos;
}

// Zombies count, too.
bool is_child_of_ours(pid_t pid) {
  const std::vector<pid_t> children = testing::children_of(::getpid());
  return std::find(children.begin(), children.end(), pid) != children.end();
}

// An answer may arrive before the pid of its child is known.
pid_t pid_of(par::Reactor& loop, const par::Remote<int(int)>& f) {
  par::Timer turns = loop.every(1ms, [&] {
    if (f.pid() != 0) turns.cancel();
  });
  loop.run();
  return f.pid();
}

// The value that differs between the snapshots of one program.
int moment = 0;

par::Snapshot taken_at(int value) {
  moment = value;
  par::SnapshotOptions options;
  options.name = "moment " + std::to_string(value);
  return par::Snapshot(options);
}

int moment_plus(int x) {
  return moment + x;
}

void echo_plus_moment(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int x) { pipe.send(moment + x); });
}

std::size_t event_loops_of(pid_t pid) {
  std::size_t count = 0;
  for (const auto& [number, target] : descriptors_of(pid))
    count += target == "anon_inode:[eventpoll]";
  return count;
}

}  // namespace

// ---- several at once ----

BOOST_AUTO_TEST_CASE(one_reactor_may_use_three_snapshots) {
  {
    std::vector<par::Snapshot> snapshots;
    for (const int value : {100, 200, 300}) snapshots.push_back(taken_at(value));
    moment = 400;
    par::Reactor loop;
    std::vector<par::Remote<int(int)>> remotes;
    std::vector<par::Process<int, int>> processes;
    for (par::Snapshot& snapshot : snapshots) {
      remotes.push_back(par::run(loop, moment_plus, in(snapshot)));
      processes.push_back(par::process(loop, echo_plus_moment, in(snapshot)));
    }
    int right = 0;
    int ended = 0;
    for (std::size_t i = 0; i < snapshots.size(); ++i) {
      const int expected = 100 * (static_cast<int>(i) + 1);
      processes[i].on_message(
          [&right, expected, next = 0](int x) mutable { right += x == expected + next++; });
      processes[i].on_exit(
          [&](const par::ExitStatus& s) { ended += s.cause == par::Cause::normal; });
    }
    for (int x = 0; x < 50; ++x) {
      for (std::size_t i = 0; i < snapshots.size(); ++i) {
        const int expected = 100 * (static_cast<int>(i) + 1) + x;
        remotes[i](x, [&right, expected](par::Result<int> r) { right += r.value() == expected; });
        processes[i].send(x);
      }
    }
    for (par::Process<int, int>& process : processes) process.close();
    loop.run();
    BOOST_TEST(right == 2 * 3 * 50);
    BOOST_TEST(ended == 3);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(two_reactors_in_succession_may_use_three_snapshots) {
  {
    std::vector<par::Snapshot> snapshots;
    for (const int value : {100, 200, 300}) snapshots.push_back(taken_at(value));
    std::vector<par::Remote<int(int)>> old;
    int unreported = 0;
    for (int round = 0; round < 3; ++round) {
      par::Reactor loop;
      std::vector<par::Remote<int(int)>> remotes;
      for (par::Snapshot& snapshot : snapshots)
        remotes.push_back(par::run(loop, moment_plus, in(snapshot)));
      for (std::size_t i = 0; i < remotes.size(); ++i)
        BOOST_TEST(ask(loop, remotes[i], round) == 100 * (static_cast<int>(i) + 1) + round);
      // Calls that are pending when the Reactor is destroyed are dropped; these children live on.
      for (par::Remote<int(int)>& remote : remotes) {
        remote(0, [&](par::Result<int>) { ++unreported; });
        old.push_back(std::move(remote));
      }
    }
    BOOST_TEST(unreported == 0);
    BOOST_TEST(old.size() == 9u);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(several_snapshots_may_have_several_reactors) {
  {
    par::Snapshot first = taken_at(100);
    par::Snapshot second = taken_at(200);
    par::Reactor one;
    par::Reactor other;
    auto f = par::run(one, moment_plus, in(first));
    auto g = par::run(other, moment_plus, in(second));
    auto h = par::run(one, moment_plus, in(second));
    BOOST_TEST(ask(one, h, 7) == 207);
    for (int x = 0; x < 3; ++x) {
      BOOST_TEST(ask(one, f, x) == 100 + x);
      BOOST_TEST(ask(other, g, x) == 200 + x);
    }
    // Both calls are pending; one loop runs in a callback of the other.
    int sum = 0;
    g(5, [&](par::Result<int> r) { sum += r.value(); });
    f(5, [&](par::Result<int> r) {
      sum += r.value();
      other.run();
    });
    one.run();
    BOOST_TEST(sum == 310);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(one_snapshot_may_be_used_after_another_is_destroyed) {
  for (const bool first_goes : {true, false}) {
    std::optional<par::Snapshot> goes(taken_at(100));
    std::optional<par::Snapshot> stays(taken_at(200));
    if (!first_goes) goes.swap(stays);
    const int lasting = first_goes ? 200 : 100;
    par::Reactor loop;
    auto dying = par::run(loop, moment_plus, in(*goes));
    auto f = par::run(loop, moment_plus, in(*stays));
    const pid_t pid = goes->pid();
    BOOST_TEST(ask(loop, f, 1) == lasting + 1);
    goes.reset();
    BOOST_TEST(ask(loop, f, 2) == lasting + 2);
    // A child that it had forked lives on, too, and the snapshot ends with that child.
    BOOST_TEST(ask(loop, dying, 2) == 300 - lasting + 2);
    BOOST_TEST(testing::process_exists(pid));
    dying = {};
    BOOST_TEST(gone(pid));
    auto g = par::run(loop, moment_plus, in(*stays));
    BOOST_TEST(ask(loop, g, 3) == lasting + 3);
  }
  testing::close_abandoned();
}

// Without a new snapshot and without the end of the Reactor.
BOOST_AUTO_TEST_CASE(a_snapshot_that_ends_while_the_loop_runs_leaves_no_zombie_and_no_descriptor) {
  {
    std::optional<par::Snapshot> snapshot(taken_at(100));
    const pid_t pid = snapshot->pid();
    par::Reactor loop;
    const std::size_t before = testing::count_descriptors();
    {
      auto f = par::run(loop, moment_plus, in(*snapshot));
      BOOST_TEST(ask(loop, f, 1) == 101);
      snapshot.reset();
    }
    BOOST_TEST(gone(pid));
    const bool reaped = testing::eventually([&] {
      static_cast<void>(loop.run_for(1ms));
      par::Timer turn = loop.after(0ms, [] {});
      loop.run();
      return !is_child_of_ours(pid);
    });
    BOOST_TEST(reaped);
    // The control socket of the snapshot, and an end of its rendezvous socket.
    BOOST_TEST(testing::count_descriptors() == before - 2);
  }
}

BOOST_AUTO_TEST_CASE(a_snapshot_that_ends_after_its_reactor_is_reaped_by_the_next_use_of_another) {
  {
    std::optional<par::Snapshot> snapshot(taken_at(100));
    par::Snapshot other = taken_at(200);
    const pid_t pid = snapshot->pid();
    {
      par::Reactor loop;
      auto f = par::run(loop, moment_plus, in(*snapshot));
      BOOST_TEST(ask(loop, f, 1) == 101);
      snapshot.reset();
    }
    BOOST_TEST(gone(pid));
    par::Reactor loop;
    auto f = par::run(loop, moment_plus, in(other));
    BOOST_TEST(ask(loop, f, 1) == 201);
    BOOST_TEST(!is_child_of_ours(pid));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(an_ended_snapshot_leaves_no_memory_behind) {
  // Memory that a program shares with its children is a mapping of a special kind.
  const auto shared_mappings = [] {
    std::ifstream maps("/proc/self/maps");
    int count = 0;
    for (std::string line; std::getline(maps, line);)
      count += line.find("/dev/zero (deleted)") != std::string::npos;
    return count;
  };
  const int before = shared_mappings();
  for (int i = 0; i < 5; ++i) {
    par::Remote<int(int)> f;
    std::optional<par::Reactor> loop;
    {
      par::Snapshot snapshot = taken_at(100);
      loop.emplace();
      f = par::run(*loop, moment_plus, in(snapshot));
    }
    BOOST_TEST(ask(*loop, f, 1) == 101);
    BOOST_TEST(shared_mappings() > before);  // the handle uses them
    loop.reset();
    f = {};
    BOOST_TEST(shared_mappings() == before);
  }
  testing::close_abandoned();
}

// ---- handles ----

BOOST_AUTO_TEST_CASE(a_moved_from_snapshot_is_empty) {
  {
    par::Snapshot from = taken_at(100);
    const pid_t pid = from.pid();
    par::Snapshot to = std::move(from);
    BOOST_TEST(from.pid() == 0);
    BOOST_TEST(!from.alive());
    from.stop();
    BOOST_TEST(to.pid() == pid);
    BOOST_TEST(to.alive());
    par::Reactor loop;
    const auto none = error_of([&] { static_cast<void>(par::run(loop, moment_plus, in(from))); });
    BOOST_TEST(says(none, par::Errc::no_snapshot, "empty"));
    const auto none_either =
        error_of([&] { static_cast<void>(par::process(loop, echo_plus_moment, in(from))); });
    BOOST_TEST(says(none_either, par::Errc::no_snapshot, "empty"));
    auto f = par::run(loop, moment_plus, in(to));
    BOOST_TEST(ask(loop, f, 1) == 101);
    from = std::move(to);  // and back
    auto g = par::run(loop, moment_plus, in(from));
    BOOST_TEST(ask(loop, g, 2) == 102);
    BOOST_TEST(ask(loop, f, 3) == 103);
    auto& same = from;
    from = std::move(same);
    BOOST_TEST(from.alive());
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(assigning_over_a_snapshot_stops_it) {
  {
    par::Snapshot snapshot = taken_at(100);
    const pid_t first = snapshot.pid();
    snapshot = taken_at(200);
    BOOST_TEST(gone(first));
    par::Reactor loop;
    auto f = par::run(loop, moment_plus, in(snapshot));
    BOOST_TEST(ask(loop, f, 1) == 201);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(options_snapshot_is_needed_only_during_the_call) {
  {
    par::Snapshot owner = taken_at(100);
    par::Reactor loop;
    par::Remote<int(int)> f;
    {
      par::Snapshot passing = std::move(owner);
      f = par::run(loop, moment_plus, in(passing));
      owner = std::move(passing);
    }
    BOOST_TEST(ask(loop, f, 1) == 101);
    // The next child, too, is forked from the snapshot and not through that handle.
    ::kill(pid_of(loop, f), SIGKILL);
    std::vector<std::string> received;
    const auto note = [&](par::Result<int> r) {
      received.push_back(r ? std::to_string(*r) : par::to_string(r.error().code()));
    };
    f(2, note);
    loop.run();
    f(3, note);
    loop.run();
    BOOST_REQUIRE(received.size() == 2u);
    BOOST_TEST(received[1] == "103");
    // Without any handle there are no further children; the living child continues.
    owner.stop();
    f(4, note);
    loop.run();
    const pid_t snapshot_pid = owner.pid();
    ::kill(pid_of(loop, f), SIGKILL);
    f(5, note);
    loop.run();
    // The snapshot ends with its last child, as requested: that is not a loss.
    BOOST_TEST(gone(snapshot_pid));
    par::Timer turn = loop.after(1ms, [] {});
    loop.run();
    f(6, note);
    loop.run();
    BOOST_REQUIRE(received.size() == 5u);
    BOOST_TEST(received[2] == "104");
    BOOST_TEST(received[4] == "no_snapshot");
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_process_without_a_snapshot_is_a_clear_error) {
  par::Reactor loop;
  const auto error = error_of([&] { static_cast<void>(par::process(loop, echo_plus_moment)); });
  BOOST_TEST(says(error, par::Errc::no_snapshot, "init()"));
}

BOOST_AUTO_TEST_CASE(a_request_to_a_stopped_snapshot_fails_without_an_exception) {
  {
    par::Snapshot snapshot = taken_at(100);
    par::Reactor loop;
    snapshot.stop();
    BOOST_TEST(!snapshot.alive());
    auto f = par::run(loop, moment_plus, in(snapshot));
    auto p = par::process(loop, echo_plus_moment, in(snapshot));
    std::vector<std::string> received;
    const auto note = [&](const par::Error& error) {
      received.push_back(par::to_string(error.code()));
      received.push_back(error.what());
    };
    f(1, [&](par::Result<int> r) { note(r.error()); });
    p.on_error(note);
    std::optional<par::Cause> cause;
    p.on_exit([&](const par::ExitStatus& s) { cause = s.cause; });
    loop.run();
    BOOST_REQUIRE(received.size() == 4u);
    for (const std::size_t i : {0u, 2u}) {
      BOOST_TEST(received[i] == "no_snapshot");
      BOOST_TEST(received[i + 1] == "no snapshot: moment 100, process " +
                                        std::to_string(snapshot.pid()) +
                                        " was stopped: name another one in Options::snapshot");
    }
    BOOST_TEST((cause == par::Cause::not_started));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_named_snapshot_may_exist_beside_the_default_one) {
  const int status = testing::elsewhere([] {
    moment = 100;
    par::init();
    par::Snapshot named = taken_at(200);
    par::Reactor loop;
    auto f = par::run(loop, moment_plus);
    auto g = par::run(loop, moment_plus, in(named));
    auto h = par::run(loop, moment_plus, in(par::default_snapshot()));
    return ask(loop, f, 1) == 101 && ask(loop, g, 1) == 201 && ask(loop, h, 1) == 101 ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

// ---- in a child ----

namespace {

std::optional<par::Snapshot> before;  // children of `after` inherit a handle of it
std::vector<par::Snapshot> more_before;
std::optional<par::Snapshot> after;

// Runs f(x) in a child of this child, by `options`.
int nested(int (*f)(int), int x, const par::Options& options) {
  int answer = -1;
  auto inner = par::run(par::this_reactor(), f, options);
  inner(x, [&](par::Result<int> r) { answer = r.value(); });
  par::this_reactor().run();
  return answer;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_child_always_uses_the_snapshot_that_forked_it) {
  before.emplace(taken_at(100));
  after.emplace(taken_at(200));
  {
    par::Reactor loop;
    auto f = par::run(
        loop,
        [](int x) {
          if (before->alive() || before->pid() == 0) return -2;
          before->stop();  // not its own: no effect
          return nested(moment_plus, x, in(*before));
        },
        in(*after));
    BOOST_TEST(ask(loop, f, 5) == 205);
    BOOST_TEST(before->alive());
    auto g = par::run(loop, moment_plus, in(*before));
    BOOST_TEST(ask(loop, g, 5) == 105);
  }
  before.reset();
  after.reset();
  testing::close_abandoned();
}

// The descriptors of an inherited handle are closed in the child, and their numbers are reused there: destroying the
// handle must not close the new ones.
BOOST_AUTO_TEST_CASE(destroying_inherited_handles_in_a_child_does_no_harm) {
  before.emplace(taken_at(100));
  for (int i = 0; i < 6; ++i) more_before.push_back(taken_at(150));
  after.emplace(taken_at(200));
  {
    par::Reactor loop;
    auto f = par::run(
        loop,
        [](int x) {
          const int first = nested(moment_plus, x, {});
          before.reset();
          more_before.clear();
          after.reset();
          return first == 205 ? nested(moment_plus, x + 1, {}) : -3;
        },
        in(*after));
    BOOST_TEST(ask(loop, f, 5) == 206);
    auto g = par::run(loop, moment_plus, in(*before));
    BOOST_TEST(ask(loop, g, 5) == 105);
    auto h = par::run(loop, moment_plus, in(*after));
    BOOST_TEST(ask(loop, h, 5) == 205);
  }
  before.reset();
  more_before.clear();
  after.reset();
  testing::close_abandoned();
}

// The copy must not write the pending messages of the child: they would arrive twice.
BOOST_AUTO_TEST_CASE(a_process_that_a_task_forks_may_end_by_exit) {
  {
    par::Snapshot snapshot = taken_at(100);
    par::Reactor loop;
    auto p = par::process<par::RawIo, par::RawIo>(
        loop,
        [](par::Pipe<int, std::string> pipe) {
          for (int i = 0; i < 300; ++i) pipe.send(std::string(10000, static_cast<char>(i)));
          for (int i = 0; i < 3; ++i) {
            const pid_t copy = ::fork();
            if (copy == 0) std::exit(i);
            int status = 0;
            ::waitpid(copy, &status, 0);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != i) ::_exit(1);
          }
          pipe.close();
        },
        in(snapshot));
    int received = 0;
    std::string order;
    p.on_message(
        [&](std::string s) { received += s == std::string(10000, static_cast<char>(received)); });
    p.on_error([&](const par::Error& error) { order += error.what(); });
    p.on_exit([&](const par::ExitStatus& s) { order += par::to_string(s.cause); });
    p.close();
    loop.run();
    BOOST_TEST(received == 300);
    BOOST_TEST(order == "normal");
  }
  testing::close_abandoned();
}

// ---- a child that never asks for children costs nothing ----

BOOST_AUTO_TEST_CASE(a_child_without_children_has_no_event_loop_and_no_cost) {
  {
    par::Snapshot snapshot = taken_at(100);
    par::Reactor loop;
    auto first = par::run(loop, moment_plus, in(snapshot));
    BOOST_TEST(ask(loop, first, 1) == 101);
    // When the pid is known the snapshot has closed its copies of the child's descriptors.
    const std::size_t of_child = descriptors_of(pid_of(loop, first)).size();
    const std::size_t of_snapshot = descriptors_of(snapshot.pid()).size();
    BOOST_TEST(of_snapshot > 0u);
    BOOST_TEST(event_loops_of(snapshot.pid()) == 0u);
    const auto snapshot_has = [&](std::size_t count) {
      return testing::eventually([&] { return descriptors_of(snapshot.pid()).size() == count; });
    };

    std::vector<par::Remote<int(int)>> many;
    for (int i = 0; i < 10; ++i) {
      many.push_back(par::run(
          loop,
          [](int x) {
            if (x > 0) return nested(moment_plus, x, {});
            return static_cast<int>(event_loops_of(::getpid()));
          },
          in(snapshot)));
      BOOST_TEST(ask(loop, many.back(), 0) == 0);
      BOOST_TEST(event_loops_of(pid_of(loop, many.back())) == 0u);
      BOOST_TEST(descriptors_of(pid_of(loop, many.back())).size() == of_child);
    }
    BOOST_TEST(snapshot_has(of_snapshot));

    // The first nested call connects to the snapshot: one socket on either side, and a loop in the child.
    BOOST_TEST(ask(loop, many[3], 1) == 101);
    BOOST_TEST(event_loops_of(many[3].pid()) == 1u);
    BOOST_TEST(snapshot_has(of_snapshot + 1));
    const std::size_t of_asking = descriptors_of(many[3].pid()).size();
    BOOST_TEST(of_asking > of_child);
    for (int x = 2; x < 6; ++x) BOOST_TEST(ask(loop, many[3], x) == 100 + x);
    BOOST_TEST(snapshot_has(of_snapshot + 1));
    BOOST_TEST(descriptors_of(many[3].pid()).size() == of_asking);
    // The others still have none; and the descriptors are closed with the child.
    BOOST_TEST(descriptors_of(many[4].pid()).size() == of_child);
    many.clear();
    BOOST_TEST(snapshot_has(of_snapshot));
  }
  testing::close_abandoned();
}

// ---- stop ----

// The request to stop is one of those that wait if the socket of a snapshot is full; it must be sent without the help
// of a later event.
BOOST_AUTO_TEST_CASE(a_stop_request_waits_while_the_socket_is_full) {
  {
    int ends[2];
    BOOST_REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0);
    const char packet[64] = {};
    int room = 0;
    while (::send(ends[0], packet, sizeof packet, 0) > 0) ++room;
    ::close(ends[0]);
    ::close(ends[1]);
    // Some of these find it full, and in one of them the stop is the first request that waits.
    for (int requests = room - 4; requests <= room + 4; ++requests) {
      std::optional<par::Snapshot> snapshot(taken_at(100));
      const pid_t pid = snapshot->pid();
      par::Reactor loop;
      auto p = par::process(loop, echo_plus_moment, in(*snapshot));
      p.on_start([&](pid_t) { loop.stop(); });
      loop.run();
      ::kill(pid, SIGSTOP);
      int status = 0;
      BOOST_TEST(::waitpid(pid, &status, WUNTRACED) == pid);
      for (int i = 0; i < requests; ++i) p.kill(0);
      snapshot.reset();
      ::kill(pid, SIGCONT);
      p.close();
      const bool ended = testing::eventually([&] {
        loop.run();
        par::Timer turn = loop.after(0ms, [] {});
        loop.run();
        return !testing::process_exists(pid);
      });
      BOOST_TEST(ended, requests << " requests before the stop");
    }
  }
  testing::close_abandoned();
}

// ---- in a process that the program has forked by itself ----

namespace {

// A program in the middle of all kinds of work, which forks by itself and continues.
class Program {
public:
  explicit Program(bool borrows = false) : snapshot_(taken_at(100)) {
    if (borrows)
      loop_.emplace(base_ = ::event_base_new());
    else
      loop_.emplace();
    remote_ = par::run(*loop_, moment_plus, in(*snapshot_));
    process_ = par::process(*loop_, echo_plus_moment, in(*snapshot_));
    process_.on_message([this](int x) { messages_.push_back(x); });
    process_.on_exit([this](const par::ExitStatus& s) { cause_ = s.cause; });
    timer_ = loop_->every(1ms, [this] { ++ticks_; });
    process_.send(1);
    remote_(1, [this](par::Result<int> r) { answers_.push_back(r.value()); });
    while (messages_.empty() || answers_.empty() || process_.pid() == 0) loop_->run_for(1ms);
    // Pending while it forks.
    process_.send(2);
    remote_(2, [this](par::Result<int> r) { answers_.push_back(r.value()); });
  }

  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    destroy("432");
    loop_.reset();
    if (base_) ::event_base_free(base_);
  }

  event_base* base() const { return base_; }
  par::Snapshot& snapshot() { return *snapshot_; }
  par::Reactor& loop() { return *loop_; }
  par::Remote<int(int)>& remote() { return remote_; }
  par::Process<int, int>& process() { return process_; }
  std::size_t received() const { return messages_.size() + answers_.size(); }

  // In the copy: destroys each part, in the order of the digits.
  void destroy(const std::string& order) {
    for (const char part : order) {
      switch (part) {
        case '0': loop_.reset(); break;
        case '1': snapshot_.reset(); break;
        case '2': remote_ = {}; break;
        case '3': process_ = {}; break;
        default: timer_.cancel(); break;
      }
    }
  }

  // In the program itself: everything works as if there had been no fork.
  bool goes_on() {
    const int ticks = ticks_;
    process_.send(3);
    remote_(3, [this](par::Result<int> r) { answers_.push_back(r.value()); });
    const auto all_there = [&] {
      return messages_.size() == 3 && answers_.size() == 3 && ticks_ > ticks;
    };
    if (!testing::eventually([&] {
          loop_->run_for(1ms);
          return all_there();
        }))
      return false;
    timer_.cancel();
    process_.close();
    loop_->run();
    auto more = par::run(*loop_, moment_plus, in(*snapshot_));
    return messages_ == std::vector<int>{101, 102, 103} &&
           answers_ == std::vector<int>{101, 102, 103} && cause_ == par::Cause::normal &&
           snapshot_->alive() && ask(*loop_, more, 7) == 107;
  }

private:
  event_base* base_ = nullptr;
  std::optional<par::Snapshot> snapshot_;
  std::optional<par::Reactor> loop_;
  par::Remote<int(int)> remote_;
  par::Process<int, int> process_;
  par::Timer timer_;
  std::vector<int> messages_;
  std::vector<int> answers_;
  int ticks_ = 0;
  std::optional<par::Cause> cause_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(handles_destroyed_in_a_fork_do_not_disturb_the_program) {
  {
    Program program;
    std::string order = "01234";
    int orders = 0;
    do {
      const int status = testing::elsewhere([&] {
        program.destroy(order);
        return 0;
      });
      BOOST_TEST(status == 0, order);
      ++orders;
    } while (std::next_permutation(order.begin(), order.end()));
    BOOST_TEST(orders == 120);
    BOOST_TEST(program.goes_on());
  }
  testing::close_abandoned();
}

// They are in memory that the copy shares with all of them.
BOOST_AUTO_TEST_CASE(handles_destroyed_in_a_fork_do_not_change_deadlines) {
  int bell[2];
  BOOST_REQUIRE(::pipe(bell) == 0);
  {
    par::Snapshot snapshot = taken_at(100);
    par::Options options = in(snapshot);
    options.deadline = 1h;
    const int waits = bell[0];
    for (const bool reactor_first : {false, true}) {
      std::optional<par::Reactor> loop(std::in_place);
      std::optional<par::Remote<bool()>> f;
      f = par::run(
          *loop,
          [waits] {
            char byte;
            if (::read(waits, &byte, 1) != 1) return false;
            return par::this_call::remaining() <= std::chrono::nanoseconds(1h);
          },
          options);
      std::vector<bool> reported;
      const auto note = [&](par::Result<bool> r) { reported.push_back(r.value()); };
      (*f)(note);
      const par::Call second = (*f)(note);
      loop->run_for(1ms);
      const int status = testing::elsewhere([&] {
        second.cancel();
        second.set_deadline(1ms);
        if (reactor_first) loop.reset();
        f.reset();
        return 0;
      });
      BOOST_TEST(status == 0);
      BOOST_TEST(::write(bell[1], "xx", 2) == 2);
      loop->run();
      BOOST_TEST((reported == std::vector<bool>{true, true}));
    }
  }
  ::close(bell[0]);
  ::close(bell[1]);
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_fork_of_the_program_may_return_from_main) {
  {
    static std::optional<Program> in_static_storage;
    in_static_storage.emplace();
    const pid_t pid = ::fork();
    if (pid == 0) std::exit(0);
    int status = 0;
    ::waitpid(pid, &status, 0);
    BOOST_TEST(status == 0);
    BOOST_TEST(in_static_storage->goes_on());
    in_static_storage.reset();
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_fork_inside_a_callback_does_not_disturb_the_program) {
  {
    static std::optional<Program> in_static_storage;
    in_static_storage.emplace();
    int status = -1;
    in_static_storage->loop().post([&] {
      const pid_t pid = ::fork();
      if (pid == 0) std::exit(0);
      ::waitpid(pid, &status, 0);
    });
    BOOST_TEST(in_static_storage->goes_on());
    BOOST_TEST(status == 0);
    in_static_storage.reset();
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(handles_used_in_a_fork_do_nothing_or_throw) {
  {
    Program program;
    par::Hold hold = program.loop().hold();
    const std::size_t received = program.received();
    const int status = testing::elsewhere([&] {
      par::Reactor& loop = program.loop();
      const std::string foreign = "another process";
      const auto refused = [&](auto f) { return misuse_of(f).find(foreign) != std::string::npos; };
      if (program.snapshot().alive()) return 1;
      program.snapshot().stop();
      if (!refused([&] { loop.run(); })) return 2;
      if (!refused([&] { static_cast<void>(loop.run_for(1ms)); })) return 3;
      if (!refused([&] { static_cast<void>(loop.after(1ms, [] {})); })) return 4;
      if (!refused([&] { static_cast<void>(loop.on_readable(0, [] {})); })) return 5;
      if (!refused([&] { loop.post([] {}); })) return 6;
      if (!refused([&] { program.remote()(1, [](par::Result<int>) {}); })) return 7;
      loop.stop();
      hold.release();
      program.remote().close();
      program.process().kill(SIGKILL);
      program.process().terminate(1ms);
      if (!program.process().send(9) || program.process().buffered() != 0) return 8;
      program.process().pause();
      program.process().resume();
      program.process().close();
      const auto error =
          error_of([&] { static_cast<void>(par::run(loop, moment_plus, in(program.snapshot()))); });
      if (!says(error, par::Errc::no_snapshot, "daemonises")) return 9;
      return program.received() == received ? 0 : 10;
    });
    BOOST_TEST(status == 0);
    hold.release();
    BOOST_TEST(program.goes_on());
  }
  testing::close_abandoned();
}

// It has a loop of its own there, and takes a snapshot of its own, too.
BOOST_AUTO_TEST_CASE(a_fork_of_the_program_may_use_the_library_again) {
  {
    std::optional<Program> program;
    program.emplace();
    const int status = testing::elsewhere([&] {
      program.reset();
      par::Snapshot own = taken_at(500);
      par::Reactor loop;
      auto f = par::run(loop, moment_plus, in(own));
      return ask(loop, f, 5) == 505 ? 0 : 1;
    });
    BOOST_TEST(status == 0);
    BOOST_TEST(program->goes_on());
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_fork_of_the_program_may_call_init_again) {
  const int status = testing::elsewhere([] {
    moment = 100;
    par::init();
    const pid_t pid = ::fork();
    if (pid > 0) {
      int inner = 0;
      ::waitpid(pid, &inner, 0);
      if (inner != 0) return WEXITSTATUS(inner);
      par::Reactor loop;
      auto f = par::run(loop, moment_plus);
      return ask(loop, f, 1) == 101 ? 0 : 1;
    }
    moment = 200;
    par::init();
    if (misuse_of([] { par::init(); }).find("already") == std::string::npos) ::_exit(2);
    par::Reactor loop;
    auto f = par::run(loop, moment_plus);
    ::_exit(ask(loop, f, 1) == 201 ? 0 : 3);
  });
  BOOST_TEST(status == 0);
}

// As libevent requires: the copy calls event_reinit() and continues to use the base, for its own events.
BOOST_AUTO_TEST_CASE(a_fork_of_the_program_may_continue_with_a_borrowed_base) {
  {
    Program program(true);
    for (const bool destroys_first : {false, true}) {
      const int status = testing::elsewhere([&] {
        event_base* const base = program.base();
        const std::size_t received = program.received();
        if (::event_reinit(base) != 0) return 1;
        if (destroys_first) program.destroy("43210");
        int fired = 0;
        event* const own = ::event_new(
            base, -1, EV_PERSIST, [](int, short, void* p) { ++*static_cast<int*>(p); }, &fired);
        const timeval often{0, 1000};
        ::event_add(own, &often);
        while (fired < 10) ::event_base_loop(base, EVLOOP_ONCE);
        ::event_free(own);
        program.destroy("43210");
        ::event_base_loop(base, EVLOOP_NONBLOCK);
        return program.received() == received ? 0 : 2;
      });
      BOOST_TEST(status == 0);
    }
    BOOST_TEST(program.goes_on());
  }
  testing::close_abandoned();
}

// ---- a program that daemonises too late ----

BOOST_AUTO_TEST_CASE(a_daemon_gets_the_reason_why_its_snapshots_are_unusable) {
  int said[2];
  BOOST_REQUIRE(::pipe(said) == 0);
  pid_t snapshots[2] = {};
  const int status = testing::elsewhere([&] {
    par::init();
    par::Snapshot named = taken_at(100);
    const pid_t pids[2] = {par::default_snapshot().pid(), named.pid()};
    if (::write(said[1], pids, sizeof pids) != sizeof pids) return 1;
    // As daemon(3) does: twice, and the first two processes end.
    if (::fork() > 0) ::_exit(0);
    ::setsid();
    if (::fork() > 0) ::_exit(0);
    if (par::default_snapshot().alive() || named.alive()) ::_exit(1);
    par::Reactor loop;
    const auto reported = [&](const par::Options& options) {
      const auto run = error_of([&] { static_cast<void>(par::run(loop, moment_plus, options)); });
      const auto process =
          error_of([&] { static_cast<void>(par::process(loop, echo_plus_moment, options)); });
      return says(run, par::Errc::no_snapshot, "daemonises") &&
             says(process, par::Errc::no_snapshot, "daemonises");
    };
    const char verdict = reported({}) && reported(in(named)) ? 'y' : 'n';
    if (::write(said[1], &verdict, 1) != 1) ::_exit(1);
    ::_exit(0);
  });
  BOOST_TEST(status == 0);
  ::close(said[1]);
  char verdict = 'n';
  BOOST_TEST(::read(said[0], snapshots, sizeof snapshots) == sizeof snapshots);
  BOOST_TEST(::read(said[0], &verdict, 1) == 1);
  BOOST_TEST(verdict == 'y');
  ::close(said[0]);
  // The program that had taken them is gone.
  for (const pid_t snapshot : snapshots) BOOST_TEST(gone(snapshot));
}

// ---- clones ----

namespace {

struct Origin {
  int moment = 0;
  pid_t from = 0;
  std::uint64_t seed = 0;
};
EVPARALLEL_FIELDS(Origin, moment, from, seed)

Origin origin_of_this_child() {
  return {moment, ::getppid(), par::child_seed()};
}

Origin origin(par::Reactor& loop, par::Snapshot& snapshot) {
  auto f = par::run(loop, origin_of_this_child, in(snapshot));
  return ask(loop, f);
}

std::string command_line_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline");
  std::string text;
  std::getline(file, text, '\0');
  return text;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_clone_is_taken_while_there_is_a_reactor) {
  {
    par::Snapshot snapshot = taken_at(300);
    moment = 301;
    par::Reactor loop;
    // Neither of the two has served anything, and the clone is used at once.
    par::Snapshot clone = snapshot.clone();
    BOOST_TEST(clone.alive());
    auto f = par::run(loop, moment_plus, in(clone));
    BOOST_TEST(ask(loop, f, 1) == 301);
    BOOST_TEST(clone.pid() != 0);
    BOOST_TEST(clone.pid() != snapshot.pid());
    BOOST_TEST(is_child_of_ours(clone.pid()));
    const Origin of_clone = origin(loop, clone);
    const Origin of_original = origin(loop, snapshot);
    BOOST_TEST(of_clone.moment == 300);
    BOOST_TEST(of_original.moment == 300);
    BOOST_TEST(of_clone.from == clone.pid());
    BOOST_TEST(of_original.from == snapshot.pid());
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_clone_and_its_original_are_independent) {
  for (const bool clone_first : {false, true}) {
    std::optional<par::Snapshot> original(taken_at(300));
    std::optional<par::Snapshot> clone(original->clone());
    std::optional<par::Reactor> reactor(std::in_place);
    par::Reactor& loop = *reactor;
    auto f = par::run(loop, moment_plus, in(*original));
    auto g = par::run(loop, moment_plus, in(*clone));
    BOOST_TEST(ask(loop, f, 1) == 301);
    BOOST_TEST(ask(loop, g, 2) == 302);
    auto& ended = clone_first ? clone : original;
    auto& left = clone_first ? original : clone;
    const pid_t pid = ended->pid();
    (clone_first ? g : f) = {};
    ended.reset();
    BOOST_TEST(gone(pid));
    BOOST_TEST(left->alive());
    for (int i = 0; i < 3; ++i) BOOST_TEST(origin(loop, *left).moment == 300);
    // A cancelled call needs the memory that both have shared.
    par::Options options = in(*left);
    options.deadline = 1ms;
    auto slow = par::run(
        loop,
        [](int x) {
          while (!par::this_call::cancelled()) {}
          return x;
        },
        options);
    std::optional<par::Errc> code;
    slow(1, [&](par::Result<int> r) { code = r.error().code(); });
    loop.run();
    BOOST_TEST((code == par::Errc::deadline));
    slow = {};
    f = {};
    g = {};
    left.reset();
    reactor.reset();
    testing::close_abandoned();
  }
}

BOOST_AUTO_TEST_CASE(children_of_clones_have_seeds_of_their_own) {
  {
    par::SnapshotOptions options;
    options.seed = 7;
    par::Snapshot snapshot(options);
    par::Snapshot one = snapshot.clone();
    par::Snapshot two = snapshot.clone();
    par::Snapshot of_one = one.clone();
    par::Reactor loop;
    std::set<std::uint64_t> seeds;
    for (par::Snapshot* each : {&snapshot, &one, &two, &of_one})
      for (int i = 0; i < 2; ++i) seeds.insert(origin(loop, *each).seed);
    BOOST_TEST(seeds.size() == 8u);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_clone_has_the_options_of_its_original_and_a_name_of_its_own) {
  {
    par::SnapshotOptions options;
    options.name = "first";
    options.replicas = 2;
    options.standby = true;
    options.spares = 1;
    par::Snapshot snapshot(options);
    par::Snapshot same = snapshot.clone();
    par::Snapshot other = snapshot.clone("second");
    par::Reactor loop;
    for (par::Snapshot* each : {&same, &other}) {
      auto f = par::run(loop, moment_plus, in(*each));
      ask(loop, f, 1);
      BOOST_TEST(testing::loop_until(loop, [&] {
        const std::vector<pid_t> pids = each->pids();
        return pids.size() == 3u && std::count(pids.begin(), pids.end(), 0) == 0;
      }));
      // The first one has a child as well.
      const std::vector<pid_t> pids = each->pids();
      BOOST_TEST(
          testing::loop_until(loop, [&] { return testing::children_of(pids[1]).size() == 1u; }));
      BOOST_TEST(testing::children_of(pids[2]).empty());
    }
    if (testing::has(command_line_of(snapshot.pid()), "snapshot [first]")) {
      BOOST_TEST(testing::has(command_line_of(same.pid()), "snapshot [first]"));
      BOOST_TEST(testing::has(command_line_of(other.pid()), "snapshot [second]"));
    }
    other.stop();
    auto f = par::run(loop, moment_plus, in(other));
    std::string text;
    f(1, [&](par::Result<int> r) { text = r.error().what(); });
    loop.run();
    BOOST_TEST(testing::has(text, "no snapshot: second, process "), text);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_snapshot_that_cannot_be_cloned_says_why) {
  {
    par::Snapshot snapshot = taken_at(300);
    par::Snapshot moved = std::move(snapshot);
    par::Snapshot lost = taken_at(400);
    BOOST_TEST(says(error_of([&] { static_cast<void>(snapshot.clone()); }), par::Errc::no_snapshot,
                    "moved from"));
    par::Reactor loop;
    auto f = par::run(
        loop,
        [](int) { return misuse_of([] { static_cast<void>(par::default_snapshot().clone()); }); },
        in(moved));
    BOOST_TEST(testing::has(ask(loop, f, 1), "a child cannot clone a snapshot"));
    f = {};
    auto g = par::run(loop, moment_plus, in(lost));
    ::kill(lost.pid(), SIGKILL);
    BOOST_TEST(testing::loop_until(loop, [&] { return !is_child_of_ours(lost.pid()); }));
    BOOST_TEST(says(error_of([&] { static_cast<void>(lost.clone()); }), par::Errc::snapshot_lost,
                    "was killed by SIGKILL, not by this library"));
    moved.stop();
    BOOST_TEST(says(error_of([&] { static_cast<void>(moved.clone()); }), par::Errc::no_snapshot,
                    "was stopped: name another one"));
  }
  testing::close_abandoned();
}

// The first call reports it.
BOOST_AUTO_TEST_CASE(a_clone_that_cannot_be_forked_fails_its_first_calls) {
  {
    par::fault::Plan plan;
    plan.victim = par::fault::Victim::snapshot;
    plan.fork_failures = 1;
    plan.fork_errno = EAGAIN;
    par::fault::arm(plan);
    par::Snapshot snapshot = taken_at(300);
    par::fault::disarm();
    par::Reactor loop;
    par::Snapshot clone = snapshot.clone();
    auto f = par::run(loop, moment_plus, in(clone));
    std::optional<par::Error> error;
    f(1, [&](par::Result<int> r) { error = r.error(); });
    loop.run();
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::spawn_failed), error->what());
    BOOST_TEST(error->os_error() == EAGAIN);
    BOOST_TEST((error->delivery() == par::Delivery::not_sent));
    BOOST_TEST(!clone.alive());
    BOOST_TEST(snapshot.alive());
    BOOST_TEST(origin(loop, snapshot).moment == 300);
    BOOST_TEST(origin(loop, snapshot).from == snapshot.pid());
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_clone_whose_original_is_dead_fails_its_calls) {
  {
    par::Snapshot snapshot = taken_at(300);
    ::kill(snapshot.pid(), SIGSTOP);
    BOOST_TEST(testing::eventually([&] { return testing::state_of(snapshot.pid()) == 'T'; }));
    par::Snapshot clone = snapshot.clone();
    ::kill(snapshot.pid(), SIGKILL);
    par::Reactor loop;
    auto f = par::run(loop, moment_plus, in(clone));
    std::optional<par::Error> error;
    f(1, [&](par::Result<int> r) { error = r.error(); });
    loop.run();
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::snapshot_lost), error->what());
    BOOST_TEST(!clone.alive());
    BOOST_TEST(clone.pid() == 0);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(clones_are_taken_in_callbacks_and_given_up_at_any_time) {
  {
    par::Snapshot snapshot = taken_at(300);
    par::Reactor loop;
    auto f = par::run(loop, moment_plus, in(snapshot));
    std::optional<par::Snapshot> clone;
    std::optional<par::Remote<int(int)>> g;
    int answer = 0;
    f(1, [&](par::Result<int>) {
      const par::Snapshot dropped = snapshot.clone();
      clone.emplace(snapshot.clone());
      g.emplace(par::run(loop, moment_plus, in(*clone)));
      (*g)(2, [&](par::Result<int> r) {
        answer = r.value();
        clone.reset();
      });
    });
    loop.run();
    BOOST_TEST(answer == 302);
    BOOST_TEST(!clone.has_value());
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_clone_may_be_used_by_another_reactor) {
  {
    par::Snapshot snapshot = taken_at(300);
    par::Reactor one;
    auto f = par::run(one, moment_plus, in(snapshot));
    par::Snapshot clone = snapshot.clone();
    {
      par::Reactor two;
      auto g = par::run(two, moment_plus, in(clone));
      BOOST_TEST(ask(two, g, 2) == 302);
    }
    BOOST_TEST(ask(one, f, 1) == 301);
    BOOST_TEST(origin(one, clone).from == clone.pid());
  }
  testing::close_abandoned();
}
