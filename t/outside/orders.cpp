// orders.cpp - handles destroyed in every order, in many states, on every kind of loop.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <event2/event.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace par = evparallel;
using namespace std::chrono_literals;

namespace {

enum class Part { reactor, snapshot, process, remote, timer };
using Order = std::vector<Part>;

enum class State {
  just_made,  // the snapshot has not yet answered
  idle,
  in_flight,
  child_dead,        // not yet reported
  snapshot_dead,     // the same
  snapshot_stopped,  // until everything is destroyed
  spinning,
};
constexpr State states[] = {State::just_made,  State::idle,          State::in_flight,
                            State::child_dead, State::snapshot_dead, State::snapshot_stopped,
                            State::spinning};

// A base of its own; a borrowed one that the Reactor runs; one that the program dispatches.
enum class Drive { own, borrowed, dispatched };
constexpr Drive drives[] = {Drive::own, Drive::borrowed, Drive::dispatched};
// On a borrowed base the two ways of driving it alternate.
Drive borrowed_for(std::size_t cell) {
  return cell % 2 == 0 ? Drive::borrowed : Drive::dispatched;
}

// All orders; with a stretched time every seventh, since a fork costs much more with a sanitizer or
// valgrind.
std::vector<Order> orders_of(Order parts) {
  const std::size_t step = testing::time_scale() > 1 ? 7 : 1;
  std::sort(parts.begin(), parts.end());
  std::vector<Order> all;
  std::size_t number = 0;
  do
    if (number++ % step == 0) all.push_back(parts);
  while (std::next_permutation(parts.begin(), parts.end()));
  return all;
}

const Order everything{Part::reactor, Part::snapshot, Part::process, Part::remote, Part::timer};
const Order all_but_the_reactor{Part::snapshot, Part::process, Part::remote, Part::timer};

std::string name_of(const Order& order, State state, Drive drive) {
  const char* const parts[] = {"reactor", "snapshot", "process", "remote", "timer"};
  const char* const in[] = {"just made",  "idle",          "in flight",
                            "child dead", "snapshot dead", "snapshot stopped",
                            "spinning"};
  const char* const on[] = {"own base", "borrowed base", "dispatched base"};
  std::string name = in[static_cast<int>(state)];
  name += std::string(", ") + on[static_cast<int>(drive)] + ":";
  for (const Part part : order) name += std::string(" ") + parts[static_cast<int>(part)];
  return name;
}

using Remote = par::Remote<std::string(std::string)>;
using Process = par::Process<std::string, std::string>;

[[noreturn]] void spin(int said) {
  if (::write(said, "x", 1) != 1) ::_exit(1);
  for (volatile bool forever = true; forever;) {}
  ::_exit(1);
}

// A program with one handle of each kind, and its events.
class Program {
public:
  Program(State state, Drive drive) : drive_(drive) {
    if (::pipe2(said_, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    snapshot_.emplace();
    far_.push_back(snapshot_->pid());
    if (drive == Drive::own) {
      reactor_.emplace();
    } else {
      base_ = ::event_base_new();
      reactor_.emplace(base_);
    }
    make();
    reach(state);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (base_) ::event_base_free(base_);
    ::close(said_[0]);
    ::close(said_[1]);
  }

  void destroy(Part part);
  void destroy(const Order& order) {
    for (const Part part : order) destroy(part);
  }
  // The same, and the loop runs after each, while it exists.
  void destroy_and_run(const Order& order) {
    for (const Part part : order) {
      destroy(part);
      turns();
      look_at_calls();
    }
  }

  // A few turns of the loop, if it exists.
  void turns();
  // Each call completes exactly once: as soon as nothing is left to wait for.
  void look_at_calls() {
    if (reactor_ && !remote_)
      for (const int times : calls_)
        if (times != 1) complain("a call was not answered");
  }
  // No process of it is left.  The next program shows that another one works as if this one had
  // never existed.
  void look_at_the_end() {
    if (stopped_) ::kill(far_[0], SIGCONT);
    wait_until_gone(far_);
    use_what_is_left();
  }

  // Calls `act` from inside of a callback, one of each kind, and then turns the loop.
  enum class Where { posted, timer, answer, message, end, exit, count };
  void act_inside(Where where, std::function<void()> act);
  // The same from inside of an event of the program.
  void act_inside_own_event(std::function<void()> act);

  const std::string& complaints() const { return complaints_; }
  void complain(const std::string& what) {
    if (complaints_.find(what) == std::string::npos) complaints_ += what + "; ";
  }

private:
  void make();
  void start();
  void reach(State state);
  void use_what_is_left();
  par::Call call(std::string argument);
  void run_until(std::function<bool()> condition);
  void wait_until_gone(const std::vector<pid_t>& pids) {
    if (!testing::eventually([&] {
          return std::none_of(pids.begin(), pids.end(),
                              [](pid_t pid) { return testing::process_exists(pid); });
        }))
      complain("a process is left");
  }
  void called(bool owner) {
    if (!reactor_) complain("a callback without a Reactor");
    if (!owner) complain("a callback of what is destroyed");
    if (std::function<void()> act = std::exchange(act_, nullptr)) act();
    if (until_ && until_() && reactor_) reactor_->stop();
  }

  Drive drive_;
  int said_[2];
  event_base* base_ = nullptr;
  std::optional<par::Reactor> reactor_;
  std::optional<par::Snapshot> snapshot_;
  std::optional<Process> process_;
  par::Pipe<std::string, std::string> pipe_;  // of that process; outlives all others
  std::optional<Remote> remote_;
  par::Call last_call_;  // outlives its call
  std::optional<par::Timer> timer_;

  bool stopped_ = false;
  std::vector<pid_t> far_;  // the snapshot, the child of the remote function, that of the process
  std::vector<int> calls_;  // number of answers of each call
  int messages_ = 0;
  int exits_ = 0;
  std::function<void()> act_;    // the action of the next callback
  std::function<bool()> until_;  // when the loop returns
  std::string complaints_;
};

void Program::make() {
  par::Options options;
  options.snapshot = &*snapshot_;
  options.linger = 1ms;
  options.grace = 1ms;
  options.retries = drive_ == Drive::own ? 0 : 1;  // both outcomes of a call whose child has died
  const int said = said_[1];
  remote_ = par::run<par::RawIo, par::RawIo>(
      *reactor_,
      [said](std::string s) {
        if (s == "spin") spin(said);
        return s;
      },
      options);
  process_ = par::process<par::RawIo, par::RawIo>(
      *reactor_,
      [said](par::Pipe<std::string, std::string> pipe) {
        pipe.on_message([pipe, said](std::string s) {
          if (s == "spin") spin(said);
          pipe.send(s);
        });
      },
      options);
  process_->on_start([this](pid_t) { called(process_.has_value()); });
  process_->on_message([this](std::string) {
    ++messages_;
    called(process_.has_value());
  });
  process_->on_exit([this](const par::ExitStatus&) {
    if (++exits_ > 1) complain("on_exit twice");
    called(process_.has_value());
  });
  pipe_ = *process_;
  timer_ = reactor_->every(200us, [this] { called(timer_.has_value()); });
  process_->send("there?");
  call("there?");
}

void Program::start() {
  run_until([this] {
    return messages_ == 1 && calls_[0] == 1 && process_->pid() != 0 && remote_->pid() != 0;
  });
  far_.push_back(remote_->pid());
  far_.push_back(process_->pid());
}

par::Call Program::call(std::string argument) {
  const std::size_t index = calls_.size();
  calls_.push_back(0);
  return (*remote_)(std::move(argument), [this, index](par::Result<std::string>) {
    if (++calls_[index] > 1) complain("a call was answered twice");
    called(true);
  });
}

void Program::run_until(std::function<bool()> condition) {
  until_ = condition;
  while (!condition()) {
    if (drive_ == Drive::dispatched)
      ::event_base_loop(base_, EVLOOP_ONCE);
    else
      reactor_->run();
  }
  until_ = nullptr;
}

void Program::turns() {
  if (!reactor_) return;
  if (drive_ == Drive::dispatched) {
    for (int i = 0; i < 3; ++i) ::event_base_loop(base_, EVLOOP_NONBLOCK);
    return;
  }
  // Each of these is called in a turn of its own.
  reactor_->post(
      [this] { reactor_->post([this] { reactor_->post([this] { reactor_->stop(); }); }); });
  reactor_->run();
}

void Program::reach(State state) {
  const std::string large(1 << 20, 'x');  // more than a socket holds
  if (state != State::just_made) start();
  switch (state) {
    case State::just_made:
    case State::idle: return;
    case State::snapshot_stopped: stopped_ = ::kill(far_[0], SIGSTOP) == 0; [[fallthrough]];
    case State::in_flight:
      for (const auto& argument : {std::string("small"), large, std::string("behind it")}) {
        call(argument);
        process_->send(argument);
      }
      call("due some day").set_deadline(1h);
      call("nobody waits for it").cancel();
      last_call_ = call("nobody will");
      return;
    case State::child_dead:
    case State::snapshot_dead:
      call("small");
      process_->send("small");
      if (state == State::snapshot_dead) {
        ::kill(far_[0], SIGKILL);
        return wait_until_gone(far_);
      }
      for (std::size_t i = 1; i < 3; ++i) ::kill(far_[i], SIGKILL);
      return wait_until_gone({far_[1], far_[2]});
    case State::spinning:
      call("spin");
      call("behind it");
      process_->send("spin");
      turns();
      char byte;
      for (int i = 0; i < 2; ++i)
        if (::read(said_[0], &byte, 1) != 1) complain("nobody spins");
      return;
  }
}

void Program::destroy(Part part) {
  switch (part) {
    case Part::reactor: return reactor_.reset();
    case Part::snapshot: return snapshot_.reset();
    case Part::process: return process_.reset();
    case Part::remote: return remote_.reset();
    case Part::timer: return timer_.reset();
  }
}

// A copy of its pipe, and a Call, may exist for ever.
void Program::use_what_is_left() {
  last_call_.set_deadline(1ms);
  last_call_.cancel();
  pipe_.pause();
  pipe_.resume();
  pipe_.close();
  pipe_.on_message([this](std::string) { complain("a message of what is destroyed"); });
  if (!pipe_.closed() || pipe_.buffered() != 0) complain("a pipe is left open");
}

void Program::act_inside(Where where, std::function<void()> act) {
  bool done = false;
  const auto once = [this, &done, act = std::move(act)] {
    act();
    done = true;
    if (drive_ != Drive::dispatched) reactor_->stop();
  };
  switch (where) {
    case Where::posted: reactor_->post([once] { once(); }); break;
    case Where::timer: act_ = once; break;  // the first callback of all
    case Where::answer: (*remote_)("small", [once](par::Result<std::string>) { once(); }); break;
    case Where::message:
      process_->on_message([once](std::string) { once(); });
      process_->send("small");
      break;
    case Where::end:
      process_->on_end([once] { once(); });
      process_->close();
      break;
    default:
      process_->on_exit([once](const par::ExitStatus&) { once(); });
      process_->kill(SIGKILL);
      break;
  }
  run_until([&] { return done; });
  turns();
  look_at_calls();
}

void Program::act_inside_own_event(std::function<void()> act) {
  event* const own = ::event_new(
      base_, -1, 0, [](int, short, void* f) { (*static_cast<std::function<void()>*>(f))(); }, &act);
  ::event_active(own, EV_TIMEOUT, 0);
  ::event_base_loop(base_, EVLOOP_NONBLOCK);
  ::event_base_loop(base_, EVLOOP_NONBLOCK);
  ::event_free(own);
}

// One cell: `act` destroys the handles.
template <class Act>
void cell(const Order& order, State state, Drive drive, Act act) {
  Program program(state, drive);
  act(program);
  program.look_at_the_end();
  BOOST_TEST(program.complaints() == "", name_of(order, state, drive)
                                             << " - " << program.complaints());
}

void every_order(State state) {
  testing::limit(900);
  std::size_t cells = 0;
  for (const Order& order : orders_of(everything)) {
    for (const Drive drive : {Drive::own, borrowed_for(cells++)})
      cell(order, state, drive, [&](Program& program) { program.destroy_and_run(order); });
  }
  BOOST_TEST(cells == (testing::time_scale() > 1 ? 18u : 120u));
  testing::close_abandoned();
}

}  // namespace

BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_before_the_snapshot_has_answered) {
  every_order(State::just_made);
}

BOOST_AUTO_TEST_CASE(idle_handles_may_be_destroyed_in_any_order) {
  every_order(State::idle);
}

BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_with_calls_in_flight,
                     *testing::guarantee("1.4")) {
  every_order(State::in_flight);
}

BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_before_dead_children_are_reported,
                     *testing::guarantee("1.4")) {
  every_order(State::child_dead);
}

BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_before_a_dead_snapshot_is_reported) {
  every_order(State::snapshot_dead);
}

BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_while_the_snapshot_is_stopped) {
  every_order(State::snapshot_stopped);
}

BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_while_children_spin) {
  every_order(State::spinning);
}

// ---- inside callbacks ----

BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_in_every_kind_of_callback) {
  testing::limit(900);
  for (int where = 0; where < static_cast<int>(Program::Where::count); ++where) {
    for (const Order& order : orders_of(all_but_the_reactor)) {
      for (const Drive drive : drives) {
        cell(order, State::idle, drive, [&](Program& program) {
          program.act_inside(static_cast<Program::Where>(where), [&] { program.destroy(order); });
          program.destroy(Part::reactor);
        });
      }
    }
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_in_a_callback_with_calls_in_flight) {
  testing::limit(900);
  for (const State state : {State::in_flight, State::spinning}) {
    for (const Order& order : orders_of(all_but_the_reactor)) {
      for (const Drive drive : drives) {
        cell(order, state, drive, [&](Program& program) {
          program.act_inside(Program::Where::posted, [&] { program.destroy(order); });
          program.destroy(Part::reactor);
        });
      }
    }
  }
  testing::close_abandoned();
}

// There the Reactor may be destroyed, too: it is not the caller.
BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_in_an_event_of_the_program) {
  testing::limit(900);
  std::size_t cells = 0;
  for (const Order& order : orders_of(everything)) {
    const State state = states[cells++ % std::size(states)];
    cell(order, state, Drive::dispatched,
         [&](Program& program) { program.act_inside_own_event([&] { program.destroy(order); }); });
  }
  testing::close_abandoned();
}

// ---- entries of calls in the memory that is shared with children ----

// Each call with a deadline has an entry there until it has ended; there is room for 2^18.
BOOST_AUTO_TEST_CASE(abandoned_calls_take_no_room_from_later_ones) {
  {
    par::Snapshot snapshot;
    par::Options options;
    options.snapshot = &snapshot;
    options.deadline = 1h;
    options.linger = 1ms;
    std::vector<par::Remote<int(int)>> left;  // their Reactors are destroyed
    for (int round = 0; round < 4; ++round) {
      par::Reactor loop;
      left.push_back(par::run<par::RawIo, par::RawIo>(
          loop, [](int x) { return x; }, options));
      for (int x = 0; x < 100000; ++x)
        left.back()(x, [](par::Result<int>) { BOOST_ERROR("called without a Reactor"); });
    }
    par::Reactor loop;
    auto f = par::run<par::RawIo, par::RawIo>(
        loop, [] { return par::this_call::remaining() <= std::chrono::nanoseconds(1h); }, options);
    int reported = 0;
    for (int i = 0; i < 50; ++i) f([&](par::Result<bool> r) { reported += r.value(); });
    loop.run();
    BOOST_TEST(reported == 50);
  }
  testing::close_abandoned();
}

// ---- at the end of the program ----

namespace {

// The state at exit(): the handles, in an order of their own, after everything local is destroyed.
Program* of_this_process;
Order order_at_exit;

[[noreturn]] void leave_to_exit(State state, Drive drive, const Order& order) {
  of_this_process = new Program(state, drive);
  order_at_exit = order;
  std::atexit([] {
    of_this_process->destroy(order_at_exit);
    if (of_this_process->complaints() != "") ::_exit(1);
    delete of_this_process;
  });
  std::exit(0);
}

}  // namespace

BOOST_AUTO_TEST_CASE(handles_may_be_destroyed_in_any_order_after_main) {
  testing::limit(900);
  std::size_t cells = 0;
  for (const Order& order : orders_of(everything)) {
    for (const Drive drive : {Drive::own, borrowed_for(cells)}) {
      // A child that spins at the end of the program has 400 ms: a few such cells are enough.
      const State state = cells % 30 == 0 ? State::spinning : states[cells % 5];
      const pid_t pid = ::fork();
      if (pid == 0) leave_to_exit(state, drive, order);
      int status = 0;
      ::waitpid(pid, &status, 0);
      BOOST_TEST(status == 0, name_of(order, state, drive) << " - status " << status);
    }
    ++cells;
  }
  // None of their processes is left: the test program would see it.
}
