// borrowed.cpp - a Reactor on the program's own event_base, with real children.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <event2/event.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>

namespace par = evparallel;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

struct BaseDeleter {
  void operator()(event_base* base) const { ::event_base_free(base); }
};
using Base = std::unique_ptr<event_base, BaseDeleter>;

// An event of the program that calls a function.
class OwnEvent {
public:
  OwnEvent(event_base* base, int fd, short what, std::function<void()> f)
      : call_(std::move(f)),
        event_(::event_new(
            base, fd, what, [](int, short, void* self) { static_cast<OwnEvent*>(self)->call_(); },
            this)) {}
  OwnEvent(const OwnEvent&) = delete;
  OwnEvent& operator=(const OwnEvent&) = delete;
  ~OwnEvent() { ::event_free(event_); }

  void add() { ::event_add(event_, nullptr); }
  void add_in(std::chrono::microseconds time) {
    const timeval in{0, static_cast<suseconds_t>(time.count())};
    ::event_add(event_, &in);
  }
  void activate() { ::event_active(event_, EV_TIMEOUT, 0); }
  void remove() { ::event_del(event_); }

private:
  std::function<void()> call_;
  event* event_;
};

// The driver of the loop.
enum class Way { own_run, run, dispatch, once };
constexpr Way ways[] = {Way::own_run, Way::run, Way::dispatch, Way::once};
constexpr Way borrowed_ways[] = {Way::run, Way::dispatch, Way::once};

std::string name_of(Way way) {
  const char* const names[] = {"own base", "Reactor::run", "event_base_dispatch", "EVLOOP_ONCE"};
  return names[static_cast<int>(way)];
}

// A loop, driven in one of these ways.
class Driven {
public:
  explicit Driven(Way way) : way_(way) {
    if (way == Way::own_run) {
      loop_.emplace();
    } else {
      base_.reset(::event_base_new());
      loop_.emplace(base_.get());
    }
  }

  par::Reactor& loop() { return *loop_; }
  event_base* base() const { return loop_->base(); }

  // Runs until `done` is true; code that changes its condition calls changed().
  void until(std::function<bool()> done) {
    done_ = std::move(done);
    switch (way_) {
      case Way::own_run:
      case Way::run: loop_->run(); break;  // returns by itself
      case Way::dispatch:
        while (!done_()) ::event_base_dispatch(base_.get());
        break;
      case Way::once:
        while (!done_()) ::event_base_loop(base_.get(), EVLOOP_ONCE);
        break;
    }
  }
  void changed() {
    if (way_ == Way::dispatch && done_()) ::event_base_loopbreak(base_.get());
  }

private:
  Way way_;
  Base base_;
  std::optional<par::Reactor> loop_;
  std::function<bool()> done_;
};

struct SocketPair {
  SocketPair() {
    BOOST_REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) == 0);
  }
  ~SocketPair() {
    ::close(fd[0]);
    ::close(fd[1]);
  }
  int fd[2];
};

void echo(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int x) { pipe.send(x); });
}

int plus_one(int x) {
  return x + 1;
}

// As `elsewhere`, if a crash is expected.
template <class F>
int dying(F f) {
  return testing::elsewhere([&] {
    ::signal(SIGABRT, SIG_DFL);
    ::signal(SIGALRM, SIG_DFL);
    ::alarm(static_cast<unsigned>(60 * testing::time_scale()));
    const int quiet = ::open("/dev/null", O_WRONLY);
    ::dup2(quiet, STDERR_FILENO);
    return f();
  });
}
constexpr int aborted = 100 + SIGABRT;

}  // namespace

// ---- all uses of a loop ----

BOOST_AUTO_TEST_CASE(calls_processes_and_timers_work_in_every_mode) {
  for (const Way way : ways) {
    Driven driven(way);
    par::Reactor& loop = driven.loop();
    auto f = par::run(loop, plus_one);
    auto p = par::process(loop, echo);
    int answers = 0;
    bool started = false;
    std::string order;
    int ticks = 0;
    bool once = false;
    for (int x = 0; x < 100; ++x) {
      f(x, [&, x](par::Result<int> r) {
        answers += r.value() == x + 1;
        driven.changed();
      });
    }
    p.on_start([&](pid_t pid) { started = pid == p.pid(); });
    p.on_message([&, next = 0](int x) mutable { order += x == next++ ? "m" : "?"; });
    p.on_end([&] { order += "e"; });
    p.on_exit([&](const par::ExitStatus& status) {
      order += status.cause == par::Cause::normal ? "x" : "?";
      driven.changed();
    });
    for (int x = 0; x < 5; ++x) p.send(x);
    p.close();
    par::Timer every = loop.every(1ms, [&] {
      if (++ticks == 3) every.cancel();
      driven.changed();
    });
    par::Timer after = loop.after(1ms, [&] {
      once = true;
      driven.changed();
    });
    driven.until([&] { return answers == 100 && order.size() == 7 && ticks == 3 && once; });
    BOOST_TEST(answers == 100, name_of(way));
    BOOST_TEST(started, name_of(way));
    BOOST_TEST(order == "mmmmmex", name_of(way) << ": " << order);
    BOOST_TEST(ticks == 3, name_of(way));
    BOOST_TEST(once, name_of(way));
  }
}

BOOST_AUTO_TEST_CASE(large_messages_and_back_pressure_work_in_every_mode) {
  for (const Way way : ways) {
    Driven driven(way);
    auto p = par::process<par::RawIo, par::RawIo>(
        driven.loop(), [](par::Pipe<std::string, std::string> pipe) {
          pipe.on_message([pipe](std::string s) { pipe.send(s); });
        });
    const std::string large(1 << 20, 'x');
    std::size_t sent = 0;
    std::size_t received = 0;
    const auto fill = [&] {
      while (sent < 10 && p.send(large)) ++sent;
      if (sent >= 10) p.close();
    };
    bool ended = false;
    p.on_drain([&] {
      ++sent;  // counts the message that was taken above the mark
      fill();
    });
    p.on_message([&](std::string s) { received += s == large; });
    p.on_exit([&](const par::ExitStatus&) {
      ended = true;
      driven.changed();
    });
    fill();
    driven.until([&] { return ended; });
    BOOST_TEST(received == sent, name_of(way));
    BOOST_TEST(received >= 10u, name_of(way));
  }
}

BOOST_AUTO_TEST_CASE(a_lost_snapshot_is_noticed_in_every_mode) {
  for (const Way way : ways) {
    const int status = testing::elsewhere([way] {
      par::Snapshot snapshot;
      par::Options options;
      options.snapshot = &snapshot;
      Driven driven(way);
      auto f = par::run(
          driven.loop(),
          [](int x) {
            for (;;) ::pause();
            return x;
          },
          options);
      auto p = par::process(driven.loop(), echo, options);
      std::string received;
      f(1, [&](par::Result<int> r) {
        received += r.error().code() == par::Errc::snapshot_lost ? "f" : "?";
        driven.changed();
      });
      p.on_start([&](pid_t) { ::kill(snapshot.pid(), SIGKILL); });
      p.on_exit([&](const par::ExitStatus& s) {
        received += s.cause == par::Cause::snapshot_lost ? "p" : "?";
        driven.changed();
      });
      driven.until([&] { return received.size() == 2; });
      if (received != "fp" && received != "pf") return 1;
      if (snapshot.alive()) return 2;
      // It is reaped in turns of the loop, whichever code runs them.
      const bool reaped = testing::eventually([&] {
        par::Timer turn = driven.loop().after(0ms, [&] { driven.changed(); });
        driven.until([&] { return !turn.active(); });
        return testing::children_of(::getpid()).empty();
      });
      return reaped ? 0 : 3;
    });
    BOOST_TEST(status == 0, name_of(way) << ": " << status);
  }
}

// The current time of libevent is the time at which the loop woke up.
BOOST_AUTO_TEST_CASE(a_timer_that_an_event_of_the_program_sets_after_long_work_is_not_early) {
  for (const Way way : borrowed_ways) {
    Driven driven(way);
    par::Timer timer;
    Clock::time_point due;
    bool fired = false;
    OwnEvent own(driven.base(), -1, 0, [&] {
      for (const auto end = Clock::now() + 60ms; Clock::now() < end;) {}
      due = Clock::now() + 30ms;
      timer = driven.loop().after(30ms, [&] {
        fired = true;
        BOOST_TEST((Clock::now() >= due), name_of(way));
        driven.changed();
      });
    });
    own.add_in(1ms);
    driven.until([&] { return fired; });
    BOOST_TEST(fired, name_of(way));
  }
}

// ---- other threads ----

BOOST_AUTO_TEST_CASE(threads_post_with_and_without_a_hold_in_every_mode) {
  for (const Way way : ways) {
    Driven driven(way);
    par::Reactor& loop = driven.loop();
    constexpr int each = 500;
    std::vector<std::vector<int>> received(3);
    std::size_t total = 0;
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < received.size(); ++t) {
      threads.emplace_back([&, t, hold = loop.hold()]() mutable {
        for (int i = 0; i < each; ++i) {
          loop.post([&, t, i] {
            received[t].push_back(i);
            ++total;
            driven.changed();
          });
        }
        hold.release();
      });
    }
    driven.until([&] { return total == 3u * each; });
    for (std::thread& thread : threads) thread.join();
    BOOST_TEST(total == 3u * each, name_of(way));
    for (const auto& numbers : received)
      BOOST_TEST(std::is_sorted(numbers.begin(), numbers.end()), name_of(way));
  }
}

// A thread that takes a Hold itself, and makes calls by posts.
BOOST_AUTO_TEST_CASE(a_thread_may_post_calls_in_every_mode) {
  for (const Way way : ways) {
    Driven driven(way);
    par::Reactor& loop = driven.loop();
    auto f = par::run(loop, plus_one);
    std::atomic<int> right{0};
    std::atomic<bool> holding{false};
    bool done = false;
    std::thread thread([&] {
      par::Hold hold = loop.hold();
      holding = true;
      for (int x = 0; x < 20; ++x) {
        std::atomic<bool> received{false};
        loop.post([&, x] {
          f(x, [&, x](par::Result<int> r) {
            right += r.value() == x + 1;
            received = true;
          });
        });
        while (!received) std::this_thread::yield();
      }
      loop.post([&] {
        done = true;
        driven.changed();
      });
    });
    while (!holding) std::this_thread::yield();
    driven.until([&] { return done; });
    thread.join();
    BOOST_TEST(right == 20, name_of(way));
  }
}

BOOST_AUTO_TEST_CASE(a_hold_on_a_borrowed_base_keeps_only_run_from_returning) {
  Driven driven(Way::run);
  par::Hold hold = driven.loop().hold();
  BOOST_TEST(driven.loop().run_for(5ms));
  std::thread thread([hold = std::move(hold)]() mutable { hold.release(); });
  driven.loop().run();
  thread.join();
  BOOST_TEST(!driven.loop().run_for(5ms));
}

// ---- the program's own events ----

BOOST_AUTO_TEST_CASE(events_of_the_program_and_the_library_take_turns_in_every_mode) {
  for (const Way way : borrowed_ways) {
    Driven driven(way);
    SocketPair pair;
    int bounced = 0;
    int answered = 0;
    const auto done = [&] { return bounced >= 100 && answered >= 100; };
    // Each side sends the byte back, a given number of times.
    std::optional<OwnEvent> ends[2];
    const auto bounce = [&](int side) {
      char byte;
      if (::read(pair.fd[side], &byte, 1) != 1) return;
      if (++bounced < 100)
        BOOST_TEST(::write(pair.fd[side], &byte, 1) == 1);
      else
        for (auto& end : ends) end->remove();
      driven.changed();
    };
    for (int side = 0; side < 2; ++side) {
      ends[side].emplace(driven.base(), pair.fd[side], EV_READ | EV_PERSIST,
                         [&, side] { bounce(side); });
      ends[side]->add();
    }
    auto f = par::run(driven.loop(), plus_one);
    std::function<void(par::Result<int>)> next = [&](par::Result<int> r) {
      answered += r.value() == answered + 1;
      if (answered < 100) f(answered, [&](par::Result<int> again) { next(std::move(again)); });
      driven.changed();
    };
    f(0, [&](par::Result<int> r) { next(std::move(r)); });
    BOOST_TEST(::write(pair.fd[0], "x", 1) == 1);
    driven.until(done);
    BOOST_TEST(bounced == 100, name_of(way));
    BOOST_TEST(answered == 100, name_of(way));
  }
}

BOOST_AUTO_TEST_CASE(an_event_of_the_program_may_create_and_drop_any_object) {
  for (const Way way : borrowed_ways) {
    Driven driven(way);
    std::optional<par::Remote<int(int)>> f;
    std::optional<par::Process<int, int>> p;
    std::vector<int> received;
    bool dropped = false;
    OwnEvent drop(driven.base(), -1, 0, [&] {
      f.reset();
      p.reset();
      dropped = true;
      driven.changed();
    });
    OwnEvent make(driven.base(), -1, 0, [&] {
      f = par::run(driven.loop(), plus_one);
      p = par::process(driven.loop(), echo);
      const auto receive = [&](int x) {
        received.push_back(x);
        if (received.size() == 2) drop.add_in(1us);
      };
      (*f)(1, [receive](par::Result<int> r) { receive(r.value()); });
      p->on_message(receive);
      p->send(2);
    });
    make.add_in(1us);
    driven.until([&] { return dropped; });
    BOOST_TEST((received == std::vector<int>{2, 2}), name_of(way));
  }
}

// Events that were ready when run() was stopped belong to the next run(): those of the library and
// of the program.
BOOST_AUTO_TEST_CASE(events_of_the_program_that_were_ready_at_a_stop_run_in_the_next_run) {
  Driven driven(Way::run);
  std::string order;
  driven.loop().post([&] {
    order += "p";
    driven.loop().stop();
  });
  OwnEvent own(driven.base(), -1, 0, [&] { order += "o"; });
  // It is before the event of the library in the queue or after it: in both cases it is called
  // once.
  own.activate();
  driven.loop().run();
  driven.loop().run();
  BOOST_TEST((order == "po" || order == "op"));
}

// ---- what keeps the loop running ----

BOOST_AUTO_TEST_CASE(events_of_the_program_but_not_idle_remotes_keep_run_from_returning) {
  Driven driven(Way::run);
  auto f = par::run(driven.loop(), plus_one);
  f(1, [](par::Result<int> r) { r.value(); });
  driven.loop().run();  // returns: the child is idle
  BOOST_TEST(f.pending() == 0u);
  bool fired = false;
  OwnEvent own(driven.base(), -1, 0, [&] { fired = true; });
  own.add_in(3ms);
  BOOST_TEST(!fired);
  driven.loop().run();
  BOOST_TEST(fired);
}

// As in the manual: only the Reactor itself keeps event_base_dispatch() from returning, with or
// without anything to do; only loopbreak and loopexit end it.
BOOST_AUTO_TEST_CASE(only_a_living_reactor_keeps_dispatch_from_returning) {
  const Base base(::event_base_new());
  par::Remote<int(int)> f;
  par::Process<int, int> p;
  par::Timer timer;
  par::Hold hold;
  const auto is_kept = [&] {
    const timeval soon{0, 20000};
    ::event_base_loopexit(base.get(), &soon);
    ::event_base_dispatch(base.get());
    return ::event_base_got_exit(base.get()) != 0;
  };
  {
    par::Reactor loop(base.get());
    BOOST_TEST(is_kept());
    f = par::run(loop, plus_one);
    p = par::process(loop, echo);
    timer = loop.after(1h, [] {});
    hold = loop.hold();
    BOOST_TEST(is_kept());
  }
  // The snapshot is alive, and so are the handles; libevent reports that there are no events.
  BOOST_TEST(::event_base_dispatch(base.get()) == 1);
  BOOST_TEST(par::default_snapshot().alive());
}

BOOST_AUTO_TEST_CASE(loopbreak_and_loopexit_of_the_program_end_run) {
  for (const bool exits : {false, true}) {
    Driven driven(Way::run);
    auto p = par::process(driven.loop(), echo);  // would keep it
    int ended = 0;
    OwnEvent own(driven.base(), -1, 0, [&] {
      ++ended;
      if (exits)
        ::event_base_loopexit(driven.base(), nullptr);
      else
        ::event_base_loopbreak(driven.base());
    });
    own.add_in(1ms);
    driven.loop().run();
    BOOST_TEST(ended == 1);
    own.add_in(1ms);
    BOOST_TEST(driven.loop().run_for(1h));
    BOOST_TEST(ended == 2);
    // It still works as before.
    int received = 0;
    p.on_message([&](int x) { received = x; });
    p.send(5);
    p.close();
    driven.loop().run();
    BOOST_TEST(received == 5);
  }
}

BOOST_AUTO_TEST_CASE(stop_ends_only_run) {
  Driven driven(Way::dispatch);
  int ticks = 0;
  par::Timer timer = driven.loop().every(1ms, [&] {
    ++ticks;
    driven.loop().stop();
    if (ticks == 3) ::event_base_loopbreak(driven.base());
  });
  ::event_base_dispatch(driven.base());
  BOOST_TEST(ticks == 3);
  // And nothing remains for the next run().
  timer = driven.loop().after(1ms, [&] { ticks = 100; });
  driven.loop().run();
  BOOST_TEST(ticks == 100);
}

BOOST_AUTO_TEST_CASE(one_base_may_be_run_and_dispatched_in_turns) {
  Driven driven(Way::run);
  event_base* const base = driven.base();
  auto f = par::run(driven.loop(), plus_one);
  int received = 0;
  const auto call = [&](bool breaks) {
    f(received, [&, breaks](par::Result<int> r) {
      received = r.value();
      if (breaks) ::event_base_loopbreak(base);
    });
  };
  for (int round = 0; round < 5; ++round) {
    call(false);
    driven.loop().run();
    BOOST_TEST(received == 3 * round + 1);
    call(true);
    ::event_base_dispatch(base);
    BOOST_TEST(received == 3 * round + 2);
    call(false);
    while (received == 3 * round + 2) ::event_base_loop(base, EVLOOP_ONCE);
    BOOST_TEST(received == 3 * round + 3);
  }
}

// ---- several Reactors ----

BOOST_AUTO_TEST_CASE(two_reactors_may_share_one_base) {
  const Base base(::event_base_new());
  par::Reactor one(base.get());
  par::Reactor other(base.get());
  // Idle reactors do not keep each other running.
  one.run();
  other.run();
  // Each run() waits for the pending events of both.
  std::string order;
  par::Timer a = one.after(1ms, [&] { order += "a"; });
  par::Timer b = other.after(2ms, [&] { order += "b"; });
  one.run();
  BOOST_TEST((order == "ab" || order == "ba"));
  auto f = par::run(one, plus_one);
  int answer = 0;
  f(1, [&](par::Result<int> r) { answer = r.value(); });
  other.run();
  BOOST_TEST(answer == 2);
  // An exception goes to the reactor of its callback.
  std::string received;
  other.on_exception([&](std::exception_ptr) { received += "other"; });
  one.on_exception([&](std::exception_ptr) { received += "one"; });
  other.post([] { throw std::runtime_error("of the other"); });
  one.run();
  BOOST_TEST(received == "other");
  one.post([] { throw std::runtime_error("of the one"); });
  BOOST_CHECK_THROW(one.run(), std::runtime_error);
  BOOST_TEST(received == "other");
}

BOOST_AUTO_TEST_CASE(reactors_come_and_go_on_one_base) {
  const Base base(::event_base_new());
  int fired = 0;
  OwnEvent own(base.get(), -1, EV_PERSIST, [&] { ++fired; });
  own.add_in(500us);
  for (int i = 0; i < 20; ++i) {
    const std::size_t before = testing::count_descriptors();
    {
      par::Reactor loop(base.get());
      auto f = par::run(loop, plus_one);
      int answer = 0;
      f(i, [&](par::Result<int> r) {
        answer = r.value();
        ::event_base_loopbreak(base.get());
      });
      while (answer == 0) ::event_base_dispatch(base.get());
      BOOST_TEST(answer == i + 1);
      f(i, [](par::Result<int>) { BOOST_ERROR("called without a Reactor"); });
    }
    BOOST_TEST(testing::count_descriptors() == before);
    BOOST_TEST(::event_base_get_num_events(base.get(), EVENT_BASE_COUNT_ADDED) == 1);
    ::event_base_loop(base.get(), EVLOOP_ONCE);
  }
  BOOST_TEST(fired > 0);
}

BOOST_AUTO_TEST_CASE(an_event_of_the_program_may_destroy_the_reactor_that_the_program_dispatches) {
  const Base base(::event_base_new());
  std::optional<par::Reactor> loop(base.get());
  auto f = par::run(*loop, plus_one);
  f(1, [](par::Result<int>) { BOOST_ERROR("called without a Reactor"); });
  loop->post([] { BOOST_ERROR("called without a Reactor"); });
  par::Timer timer = loop->after(0ms, [] { BOOST_ERROR("called without a Reactor"); });
  bool destroyed = false;
  OwnEvent own(base.get(), -1, 0, [&] {
    loop.reset();
    destroyed = true;
  });
  own.activate();                     // before all events of the library
  ::event_base_dispatch(base.get());  // returns: no event of the library is left
  BOOST_TEST(destroyed);
  BOOST_TEST(!timer.active());
}

// There run() itself is called on the object that is destroyed.
BOOST_AUTO_TEST_CASE(an_event_of_the_program_may_destroy_a_running_reactor) {
  const Base base(::event_base_new());
  std::optional<par::Reactor> loop(base.get());
  par::Timer timer = loop->after(1h, [] { BOOST_ERROR("called without a Reactor"); });
  OwnEvent own(base.get(), -1, 0, [&] { loop.reset(); });
  own.add_in(1us);
  loop->run();
  BOOST_TEST(!loop.has_value());
  BOOST_TEST(!timer.active());
}

// ---- exceptions ----

namespace {

// One callback of each kind, which throws its name once.
class Throwers {
public:
  explicit Throwers(Driven& driven) : driven_(driven) {
    par::Reactor& loop = driven.loop();
    f_ = par::run(loop, plus_one);
    p_ = par::process(loop, echo);
    f_(1, [this](par::Result<int>) { fail("answer"); });
    p_.on_start([this](pid_t) { fail("start"); });
    p_.on_message([this](int) { fail("message"); });
    p_.on_end([this] { fail("end"); });
    p_.on_exit([this](const par::ExitStatus&) { fail("exit"); });
    p_.send(1);
    p_.close();
    timer_ = loop.after(1ms, [this] { fail("timer"); });
    loop.post([this] { fail("post"); });
  }

  static std::vector<std::string> all() {
    return {"answer", "end", "exit", "message", "post", "start", "timer"};
  }

private:
  void fail(const char* name) {
    driven_.changed();
    throw std::runtime_error(name);
  }
  Driven& driven_;
  par::Remote<int(int)> f_;
  par::Process<int, int> p_;
  par::Timer timer_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(exceptions_of_every_kind_of_callback_are_thrown_out_of_run_one_by_one) {
  for (const Way way : {Way::own_run, Way::run}) {
    Driven driven(way);
    bool reported = false;
    driven.loop().on_exception([&](std::exception_ptr) { reported = true; });
    Throwers throwers(driven);
    std::vector<std::string> received;
    while (received.size() < 20) {
      try {
        driven.loop().run();
        break;
      } catch (const std::runtime_error& error) {
        received.push_back(error.what());
      }
    }
    std::sort(received.begin(), received.end());
    BOOST_TEST((received == Throwers::all()), name_of(way));
    BOOST_TEST(!reported, name_of(way));  // it is for programs that dispatch
  }
}

BOOST_AUTO_TEST_CASE(exceptions_of_every_kind_of_callback_reach_on_exception_under_dispatch) {
  for (const Way way : {Way::dispatch, Way::once}) {
    Driven driven(way);
    std::vector<std::string> received;
    driven.loop().on_exception([&](std::exception_ptr thrown) {
      try {
        std::rethrow_exception(thrown);
      } catch (const std::runtime_error& error) {
        received.push_back(error.what());
      }
      driven.changed();
    });
    Throwers throwers(driven);
    driven.until([&] { return received.size() == Throwers::all().size(); });
    std::sort(received.begin(), received.end());
    BOOST_TEST((received == Throwers::all()), name_of(way));
  }
}

// All calls of a dead child get their error, even if callbacks throw.
BOOST_AUTO_TEST_CASE(calls_are_answered_once_each_although_their_callbacks_throw) {
  for (const Way way : ways) {
    Driven driven(way);
    int thrown = 0;
    driven.loop().on_exception([&](std::exception_ptr) {
      ++thrown;
      driven.changed();
    });
    auto f = par::run(driven.loop(), [](int x) {
      if (x == 10) ::raise(SIGKILL);
      return x;
    });
    std::vector<int> received(20);
    for (int x = 0; x < 20; ++x) {
      f(x, [&received, x](par::Result<int>) {
        ++received[static_cast<std::size_t>(x)];
        throw std::runtime_error("mine");
      });
    }
    if (way == Way::own_run || way == Way::run) {
      for (bool left = true; left;) {
        try {
          driven.loop().run();
          left = false;
        } catch (const std::runtime_error&) {
          ++thrown;
        }
      }
    } else {
      driven.until([&] { return thrown == 20; });
      BOOST_TEST(thrown == 20, name_of(way));
    }
    BOOST_TEST(thrown > 0, name_of(way));
    BOOST_TEST((received == std::vector<int>(20, 1)), name_of(way));
  }
}

BOOST_AUTO_TEST_CASE(an_exception_that_leaves_on_exception_ends_the_program) {
  const int status = dying([] {
    event_base* const base = ::event_base_new();
    par::Reactor loop(base);
    loop.on_exception([](std::exception_ptr thrown) { std::rethrow_exception(thrown); });
    loop.post([] { throw std::runtime_error("mine"); });
    ::event_base_dispatch(base);
    return 0;
  });
  BOOST_TEST(status == aborted);
}

// ---- in a child ----

// A task that has a base of its own, in addition to the reactor of the child.
BOOST_AUTO_TEST_CASE(a_child_may_have_its_own_base) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    const Base base(::event_base_new());
    par::Reactor own(base.get());
    auto inner = par::run(own, plus_one);
    int answer = 0;
    inner(x, [&](par::Result<int> r) {
      answer = r.value();
      ::event_base_loopbreak(base.get());
    });
    while (answer == 0) ::event_base_dispatch(base.get());
    return answer;
  });
  std::vector<int> answers;
  for (const int x : {1, 2, 3}) f(x, [&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  BOOST_TEST((answers == std::vector<int>{2, 3, 4}));
}
