// reactor.cpp - the event loop: timers, watches, posts, and the behaviour of run().
#include "calling.hpp"
#include "private_names.hpp"
#include "testing.hpp"

#include "base/callback_slot.hpp"
#include "loop/event_loop.hpp"

#include <evparallel/reactor.hpp>

#include <event2/event.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

void work_for(std::chrono::milliseconds time) {
  for (const auto end = Clock::now() + time; Clock::now() < end;) {}
}

struct PipeEnds {
  PipeEnds() { BOOST_REQUIRE(::pipe2(fd, O_CLOEXEC | O_NONBLOCK) == 0); }
  ~PipeEnds() {
    ::close(fd[0]);
    ::close(fd[1]);
  }
  int fd[2];
};

struct BaseDeleter {
  void operator()(event_base* base) const { ::event_base_free(base); }
};
using Base = std::unique_ptr<event_base, BaseDeleter>;

struct EventDeleter {
  void operator()(event* own) const { ::event_free(own); }
};
// An event of the program itself.
using OwnEvent = std::unique_ptr<event, EventDeleter>;

std::string what_leaves(par::Reactor& loop) {
  try {
    loop.run();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing";
}

// Runs f in a forked copy of the test.  Returns its exit status; 1000 and more: a signal.  SIGALRM: it hangs.
template <class F>
int in_copy(F f) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::signal(SIGABRT, SIG_DFL);
    ::signal(SIGALRM, SIG_DFL);
    const auto limit = std::chrono::duration_cast<std::chrono::seconds>(testing::patience());
    ::alarm(static_cast<unsigned>(limit.count()));
    const int quiet = ::open("/dev/null", O_WRONLY);
    ::dup2(quiet, STDERR_FILENO);
    ::_exit(f());
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

}  // namespace

BOOST_AUTO_TEST_CASE(run_returns_when_nothing_is_pending) {
  par::Reactor loop;
  loop.run();
  loop.run();
  BOOST_TEST(loop.base() != nullptr);
}

// As for a base that the program makes.
BOOST_AUTO_TEST_CASE(libevent_settings_in_the_environment_are_respected) {
  const auto method = [] { return std::string(::event_base_get_method(par::Reactor().base())); };
  BOOST_TEST(method() == "epoll");
  ::setenv("EVENT_NOEPOLL", "1", 1);
  BOOST_TEST(method() == "poll");
  ::unsetenv("EVENT_NOEPOLL");
  BOOST_TEST(method() == "epoll");
}

BOOST_AUTO_TEST_CASE(timers_fire_in_order_and_never_early) {
  par::Reactor loop;
  std::vector<int> order;
  const auto start = Clock::now();
  const auto at = [&](int ms) {
    return [&order, ms, start] {
      BOOST_TEST((Clock::now() - start >= std::chrono::milliseconds(ms)));
      order.push_back(ms);
    };
  };
  par::Timer a = loop.after(30ms, at(30));
  par::Timer b = loop.after(10ms, at(10));
  par::Timer c = loop.after(20ms, at(20));
  const bool all_set_at_once = Clock::now() - start < 5ms;
  BOOST_TEST(a.active());
  loop.run();
  BOOST_TEST(order.size() == 3u);
  if (all_set_at_once) BOOST_TEST((order == std::vector<int>{10, 20, 30}));
  BOOST_TEST(!a.active());
}

BOOST_AUTO_TEST_CASE(a_timer_set_after_long_work_is_not_early) {
  par::Reactor loop;
  par::Timer inner;
  bool fired = false;
  par::Timer other = loop.every(1ms, [&] {
    if (fired) other.cancel();
  });
  par::Timer outer = loop.after(1ms, [&] {
    work_for(100ms);
    const auto set_at = Clock::now();
    inner = loop.after(50ms, [&, set_at] {
      fired = true;
      BOOST_TEST((Clock::now() - set_at >= 50ms));
    });
  });
  loop.run();
  BOOST_TEST(fired);
}

BOOST_AUTO_TEST_CASE(every_repeats_until_it_is_cancelled_by_itself) {
  par::Reactor loop;
  int times = 0;
  par::Timer timer = loop.every(1ms, [&] {
    if (++times == 5) timer.cancel();
  });
  loop.run();
  BOOST_TEST(times == 5);
  BOOST_CHECK_THROW(static_cast<void>(loop.every(0ms, [] {})), std::logic_error);
}

BOOST_AUTO_TEST_CASE(a_dropped_timer_never_fires_and_a_detached_one_does) {
  par::Reactor loop;
  int fired = 0;
  {
    const par::Timer dropped = loop.after(1ms, [&] { fired += 100; });
    loop.after(2ms, [&] { ++fired; }).detach();
  }
  loop.run();
  BOOST_TEST(fired == 1);
}

BOOST_AUTO_TEST_CASE(a_timer_may_destroy_its_own_handle_and_set_it_anew) {
  par::Reactor loop;
  auto timer = std::make_unique<par::Timer>();
  int fired = 0;
  *timer = loop.after(1ms, [&, big = std::string(100, 'x')] {
    timer.reset();
    fired += big.size() == 100;  // the callback is still intact
    timer = std::make_unique<par::Timer>(loop.after(1ms, [&] { ++fired; }));
  });
  loop.run();
  BOOST_TEST(fired == 2);
}

BOOST_AUTO_TEST_CASE(moving_a_timer_over_another_cancels_that) {
  par::Reactor loop;
  std::string fired;
  par::Timer timer = loop.after(1ms, [&] { fired += "a"; });
  timer = loop.after(2ms, [&] { fired += "b"; });
  loop.run();
  BOOST_TEST(fired == "b");
}

BOOST_AUTO_TEST_CASE(descriptors_are_watched_until_the_watch_is_dropped) {
  par::Reactor loop;
  PipeEnds ends;
  std::string got;
  bool writable = false;
  par::Watch writing = loop.on_writable(ends.fd[1], [&] {
    writable = true;
    BOOST_TEST(::write(ends.fd[1], "ab", 2) == 2);
    writing.cancel();
  });
  par::Watch reading = loop.on_readable(ends.fd[0], [&] {
    char c;
    if (::read(ends.fd[0], &c, 1) == 1) got += c;
    if (got == "ab") reading = par::Watch();
  });
  BOOST_TEST(reading.active());
  loop.run();
  BOOST_TEST(writable);
  BOOST_TEST(got == "ab");
}

BOOST_AUTO_TEST_CASE(only_one_reactor_watches_signals) {
  par::Reactor loop;
  int received = 0;
  par::Watch watch = loop.on_signal(SIGUSR1, [&] {
    if (++received == 2)
      watch.cancel();
    else
      ::raise(SIGUSR1);
  });
  {
    par::Reactor other;
    BOOST_CHECK_THROW(static_cast<void>(other.on_signal(SIGUSR2, [] {})), std::logic_error);
  }
  ::raise(SIGUSR1);
  loop.run();
  BOOST_TEST(received == 2);
}

BOOST_AUTO_TEST_CASE(posts_from_threads_run_in_order_under_a_hold) {
  par::Reactor loop;
  constexpr int each = 1000;
  std::vector<std::vector<int>> received(3);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < received.size(); ++t)
    threads.emplace_back([&loop, &received, t, hold = loop.hold()]() mutable {
      for (int i = 0; i < each; ++i) loop.post([&received, t, i] { received[t].push_back(i); });
      hold.release();
    });
  loop.run();
  for (std::thread& thread : threads) thread.join();
  loop.run();  // runs the last post, which came after the hold was dropped
  for (const auto& numbers : received) {
    BOOST_REQUIRE(numbers.size() == static_cast<std::size_t>(each));
    BOOST_TEST(std::is_sorted(numbers.begin(), numbers.end()));
  }
}

BOOST_AUTO_TEST_CASE(post_takes_move_only_callbacks_and_runs_earlier_posts) {
  par::Reactor loop;
  int value = 0;
  loop.post([&, owned = std::make_unique<int>(5)] { value = *owned; });
  BOOST_TEST(value == 0);
  loop.run();
  BOOST_TEST(value == 5);
}

BOOST_AUTO_TEST_CASE(a_hold_dropped_in_a_thread_lets_run_return) {
  par::Reactor loop;
  par::Hold hold = loop.hold();
  std::thread thread([&loop, hold = std::move(hold)]() mutable {
    loop.post([] {});
    hold = par::Hold();
  });
  loop.run();
  thread.join();
  BOOST_TEST(true);  // it returned
}

BOOST_AUTO_TEST_CASE(run_for_returns_whether_work_is_left) {
  par::Reactor loop;
  BOOST_TEST(!loop.run_for(1ms));
  bool fired = false;
  par::Timer timer = loop.after(1h, [&] { fired = true; });
  BOOST_TEST(loop.run_for(1ms));
  BOOST_TEST(!fired);
  timer = loop.after(5ms, [&] { fired = true; });
  BOOST_TEST(!loop.run_for(1h));
  BOOST_TEST(fired);
}

BOOST_AUTO_TEST_CASE(stop_returns_after_the_running_callback_and_has_no_effect_outside) {
  par::Reactor loop;
  loop.stop();
  std::string order;
  par::Timer a = loop.after(1ms, [&] {
    loop.stop();
    order += "a";
  });
  par::Timer b = loop.after(20ms, [&] { order += "b"; });
  loop.run();
  BOOST_TEST(order == "a");
  loop.run();
  BOOST_TEST(order == "ab");
}

BOOST_AUTO_TEST_CASE(run_inside_a_callback_is_misuse) {
  par::Reactor loop;
  bool refused = false;
  par::Timer timer = loop.after(0ms, [&] {
    try {
      loop.run();
    } catch (const std::logic_error&) {
      refused = true;
    }
  });
  loop.run();
  BOOST_TEST(refused);
}

BOOST_AUTO_TEST_CASE(an_exception_is_thrown_out_of_run_and_the_loop_still_works) {
  par::Reactor loop;
  par::Timer timer = loop.after(0ms, [] { throw std::runtime_error("mine"); });
  bool later = false;
  par::Timer other = loop.after(5ms, [&] { later = true; });
  BOOST_CHECK_EXCEPTION(loop.run(), std::runtime_error, [](const std::runtime_error& e) {
    return std::string(e.what()) == "mine";
  });
  BOOST_TEST(!later);
  loop.run();
  BOOST_TEST(later);
}

BOOST_AUTO_TEST_CASE(handles_outlive_their_reactor_and_do_nothing) {
  par::Timer timer;
  par::Watch watch;
  par::Hold hold;
  PipeEnds ends;
  auto token = std::make_shared<int>(0);
  {
    par::Reactor loop;
    timer = loop.after(0ms, [token] { ++*token; });
    watch = loop.on_readable(ends.fd[0], [token] { ++*token; });
    hold = loop.hold();
    loop.after(1h, [token] { ++*token; }).detach();
    loop.post([token] { ++*token; });
  }
  BOOST_TEST(!timer.active());
  BOOST_TEST(!watch.active());
  timer.cancel();
  watch.cancel();
  hold.release();
  BOOST_TEST(*token == 0);
  timer = par::Timer();
  watch = par::Watch();
  BOOST_TEST(token.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(this_reactor_is_available_only_in_children) {
  BOOST_CHECK_THROW(par::this_reactor(), std::logic_error);
}

BOOST_AUTO_TEST_CASE(a_borrowed_base_also_runs_events_of_the_program) {
  const Base base(::event_base_new());
  int own = 0;
  event* timer = ::event_new(
      base.get(), -1, 0, [](int, short, void* p) { ++*static_cast<int*>(p); }, &own);
  const timeval in{0, 20000};
  ::event_add(timer, &in);
  {
    par::Reactor loop(base.get());
    bool fired = false;
    par::Timer mine = loop.after(1ms, [&] { fired = true; });
    BOOST_TEST(loop.base() == base.get());
    loop.run();  // returns when the program's timer has fired too
    BOOST_TEST(fired);
    BOOST_TEST(own == 1);
    loop.run();
  }
  ::event_free(timer);
  BOOST_CHECK_THROW(par::Reactor(nullptr), std::logic_error);
}

BOOST_AUTO_TEST_CASE(the_program_may_dispatch_a_borrowed_base) {
  const Base base(::event_base_new());
  {
    par::Reactor loop(base.get());
    std::string received;
    loop.on_exception([&](std::exception_ptr exception) {
      try {
        std::rethrow_exception(exception);
      } catch (const std::exception& e) {
        received = e.what();
      }
      ::event_base_loopbreak(base.get());
    });
    par::Timer timer = loop.after(1ms, [] { throw std::runtime_error("mine"); });
    ::event_base_dispatch(base.get());
    BOOST_TEST(received == "mine");
  }
}

BOOST_AUTO_TEST_CASE(deferred_callbacks_run_in_order_and_not_inside_the_caller) {
  par::Reactor loop;
  par::Loop& inner = *loop.loop();
  std::string order;
  inner.defer([&] {
    order += "a";
    inner.defer([&] { order += "c"; });
    order += "b";
  });
  BOOST_TEST(order.empty());
  loop.run();
  BOOST_TEST(order == "abc");
}

BOOST_AUTO_TEST_CASE(callbacks_hold_big_and_move_only_objects) {
  struct Big {
    char bytes[200];
  };
  Big big{};
  big.bytes[199] = 'x';
  par::Callback<char(int)> call([big, owned = std::make_unique<int>(1)](int i) {
    return static_cast<char>(big.bytes[199] + i + *owned - 1);
  });
  par::Callback<char(int)> moved(std::move(call));
  BOOST_TEST(!call);
  BOOST_TEST(moved(1) == 'y');
  call = std::move(moved);
  BOOST_TEST(call(0) == 'x');
  call = nullptr;
  BOOST_TEST(!call);
  auto token = std::make_shared<int>(0);
  {
    par::Callback<void()> small([token] {});
    par::Callback<void()> other(std::move(small));
    BOOST_TEST(token.use_count() == 2);
  }
  BOOST_TEST(token.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(a_handler_may_replace_and_release_itself) {
  par::CallbackSlot<void(int)> handler;
  int sum = 0;
  handler(1);  // empty: has no effect
  handler.set([&](int x) {
    sum += x;
    handler.set([&](int y) {
      sum += 10 * y;
      handler.release();
      sum += 100;  // the handler is still intact
    });
  });
  BOOST_TEST(handler.is_set());
  handler(1);
  handler(1);
  handler(1);
  BOOST_TEST(sum == 111);
  BOOST_TEST(!handler.is_set());
}

// ---- timers, further cases ----

// A timer may be early by the granularity of the loop's clock: one tick.
BOOST_AUTO_TEST_CASE(many_timers_fire_in_order) {
  par::Reactor loop;
  std::mt19937 random(testing::seed(1));
  struct Due {  // the limits of its time
    Clock::time_point from;
    Clock::time_point to;
  };
  std::vector<Due> due(200);
  std::vector<Due> order;
  std::vector<par::Timer> timers;
  for (Due& each : due) {
    const auto time = std::chrono::microseconds(random() % 60000);
    each.from = Clock::now() + time;
    timers.push_back(loop.after(time, [&order, &each] {
      order.push_back(each);
      if (Clock::now() < each.from) BOOST_ERROR("early");
    }));
    each.to = Clock::now() + time;
  }
  loop.run();
  BOOST_TEST(order.size() == 200u);
  for (std::size_t i = 1; i < order.size(); ++i)
    BOOST_TEST((order[i].to + 15ms >= order[i - 1].from));
}

BOOST_AUTO_TEST_CASE(negative_and_huge_durations_are_handled) {
  par::Reactor loop;
  std::vector<par::Timer> timers;
  int fired = 0;
  for (const auto time : {-1000000000000ns, -1ns})
    BOOST_CHECK_THROW(static_cast<void>(loop.after(time, [] {})), std::logic_error);
  for (const auto time : {0ns, 1ns, 999ns, 1001ns, 1000000ns, 1000001ns}) {
    const auto due = Clock::now() + time;
    timers.push_back(loop.after(time, [&fired, due] {
      ++fired;
      BOOST_TEST((Clock::now() >= due));
    }));
  }
  auto far = loop.after(24h * 365 * 100, [] { BOOST_ERROR("a century has passed"); });
  timers.push_back(loop.after(1ms, [&] { far.cancel(); }));
  loop.run();
  BOOST_TEST(fired == 6);
}

BOOST_AUTO_TEST_CASE(every_is_never_early_and_missed_periods_are_not_made_up_for) {
  par::Reactor loop;
  constexpr auto period = 40ms;
  std::vector<Clock::duration> fired;
  const auto start = Clock::now();
  par::Timer timer = loop.every(period, [&] {
    fired.push_back(Clock::now() - start);
    if (fired.size() == 1) work_for(140ms);
    if (fired.size() == 4) timer.cancel();
  });
  loop.run();
  BOOST_REQUIRE(fired.size() == 4u);
  BOOST_TEST((fired[0] >= period));
  BOOST_TEST((fired[1] >= 2 * period));
  // The second call was late, after 180 ms: the third comes at its own time, which is still ahead.
  if (fired[1] < 198ms) BOOST_TEST((fired[2] >= 5 * period));
}

BOOST_AUTO_TEST_CASE(a_due_timer_may_be_cancelled_by_another) {
  par::Reactor loop;
  std::string fired;
  par::Timer first;
  par::Timer second;
  first = loop.after(0ms, [&] {
    fired += "1";
    second.cancel();
  });
  second = loop.after(0ms, [&] {
    fired += "2";
    first.cancel();
  });
  work_for(10ms);  // both are due
  loop.run();
  BOOST_TEST((fired == "1" || fired == "2"));
}

BOOST_AUTO_TEST_CASE(a_timer_may_own_itself) {
  par::Reactor loop;
  auto token = std::make_shared<int>(0);
  auto own = std::make_shared<par::Timer>();
  *own = loop.after(1ms, [own, token] { ++*token; });
  own.reset();
  loop.run();
  BOOST_TEST(*token == 1);
}

BOOST_AUTO_TEST_CASE(a_detached_timer_ends_itself_through_its_handle) {
  par::Reactor loop;
  int ticks = 0;
  loop.every(1ms,
             [&](par::Timer& own) {
               BOOST_TEST(own.active());
               if (++ticks < 3) return;
               own.cancel();
               BOOST_TEST(!own.active());
             })
      .detach();
  loop.run();
  BOOST_TEST(ticks == 3);
}

BOOST_AUTO_TEST_CASE(a_timer_cancelled_by_its_callback_is_inactive_for_its_owner) {
  par::Reactor loop;
  int ticks = 0;
  par::Timer first = loop.every(1ms, [&](par::Timer& own) {
    if (++ticks == 2) own.cancel();
  });
  const par::Timer owner = std::move(first);
  loop.run();
  BOOST_TEST(ticks == 2);
  BOOST_TEST(!owner.active());
}

BOOST_AUTO_TEST_CASE(the_handle_of_a_callback_cancels_nothing_at_its_end) {
  par::Reactor loop;
  int ticks = 0;
  par::Timer owner = loop.every(1ms, [&](par::Timer&) {
    if (++ticks == 1) throw std::runtime_error("thrown");
    if (ticks == 3) owner = par::Timer();
  });
  BOOST_TEST(what_leaves(loop) == "thrown");
  BOOST_TEST(owner.active());
  loop.run();
  BOOST_TEST(ticks == 3);
}

BOOST_AUTO_TEST_CASE(a_timer_that_fires_once_is_inactive_in_its_callback) {
  par::Reactor loop;
  bool fired = false;
  loop.after(0ms,
             [&, owned = std::make_unique<int>(1)](par::Timer& own) {
               BOOST_TEST(!own.active());
               own.cancel();
               fired = *owned == 1;
             })
      .detach();
  loop.run();
  BOOST_TEST(fired);
}

BOOST_AUTO_TEST_CASE(a_handle_moved_out_of_a_callback_cancels_as_any_other) {
  par::Reactor loop;
  int ticks = 0;
  par::Timer taken;
  loop.every(1ms,
             [&](par::Timer& own) {
               if (++ticks == 1) taken = std::move(own);
             })
      .detach();
  while (ticks < 3) loop.run_for(1ms);
  BOOST_TEST(taken.active());
  taken = par::Timer();
  BOOST_TEST(!loop.run_for(0ms));
}

BOOST_AUTO_TEST_CASE(another_timer_put_into_the_handle_of_a_callback_ends_with_it) {
  par::Reactor loop;
  int fired = 0;
  const par::Timer owner = loop.every(1ms, [&](par::Timer& own) {
    ++fired;
    own = loop.after(0ms, [] { BOOST_ERROR("it is cancelled"); });
  });
  loop.run();
  BOOST_TEST(fired == 1);
  BOOST_TEST(!owner.active());
}

BOOST_AUTO_TEST_CASE(a_callback_of_both_forms_is_called_without_an_argument) {
  par::Reactor loop;
  std::size_t most = 0;
  int calls = 0;
  const auto both = [&](auto&&... arguments) {
    ++calls;
    most = std::max(most, sizeof...(arguments));
  };
  const par::Timer one = loop.after(0ms, both);
  const par::Timer generic = loop.after(0ms, [&](auto& own) { calls += own.active() ? 0 : 1; });
  const par::Timer ready = loop.after(0ms, par::Callback<void()>([&] { ++calls; }));
  const par::Timer nothing = loop.after(0ms, nullptr);
  loop.run();
  BOOST_TEST(calls == 3);
  BOOST_TEST(most == 0u);
}

BOOST_AUTO_TEST_CASE(a_timer_releases_the_objects_of_its_callback) {
  par::Reactor loop;
  auto token = std::make_shared<int>(0);
  par::Timer timer = loop.after(1h, [token] {});
  BOOST_TEST(token.use_count() == 2);
  timer.cancel();
  BOOST_TEST(token.use_count() == 1);
  loop.after(1ms, [token] {}).detach();
  loop.run();
  BOOST_TEST(token.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(detached_handles_are_empty) {
  par::Reactor loop;
  int fired = 0;
  par::Timer timer = loop.after(1ms, [&] { ++fired; });
  timer.detach();
  BOOST_TEST(!timer.active());
  timer.cancel();  // the timer no longer belongs to it
  loop.run();
  BOOST_TEST(fired == 1);
  par::Timer none;
  none.detach();
  none.cancel();
  BOOST_TEST(!none.active());
}

// ---- watches, further cases ----

BOOST_AUTO_TEST_CASE(a_watch_fires_again_until_the_bytes_are_read) {
  par::Reactor loop;
  PipeEnds ends;
  BOOST_REQUIRE(::write(ends.fd[1], "x", 1) == 1);
  int fired = 0;
  auto watch = std::make_unique<par::Watch>();
  *watch = loop.on_readable(ends.fd[0], [&, big = std::string(100, 'x')] {
    if (++fired < 3) return;
    watch.reset();
    fired += big.size() == 100 ? 100 : 0;  // the callback is still intact
  });
  loop.run();
  BOOST_TEST(fired == 103);
}

BOOST_AUTO_TEST_CASE(one_descriptor_may_have_two_watches) {
  int fds[2];
  BOOST_REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  {
    par::Reactor loop;
    BOOST_REQUIRE(::write(fds[1], "x", 1) == 1);
    int readable = 0;
    int writable = 0;
    par::Watch reading = loop.on_readable(fds[0], [&] {
      ++readable;
      reading.cancel();
    });
    par::Watch writing = loop.on_writable(fds[0], [&] {
      if (++writable == 3) writing.cancel();
    });
    loop.run();
    BOOST_TEST(readable == 1);
    BOOST_TEST(writable == 3);
  }
  ::close(fds[0]);
  ::close(fds[1]);
}

BOOST_AUTO_TEST_CASE(a_ready_watch_may_be_dropped_by_another) {
  par::Reactor loop;
  PipeEnds one;
  PipeEnds other;
  BOOST_REQUIRE(::write(one.fd[1], "x", 1) == 1);
  BOOST_REQUIRE(::write(other.fd[1], "x", 1) == 1);
  int fired = 0;
  par::Watch first;
  par::Watch second;
  const auto both = [&] {
    ++fired;
    first = par::Watch();
    second = par::Watch();
  };
  first = loop.on_readable(one.fd[0], both);
  second = loop.on_readable(other.fd[0], both);
  loop.run();
  BOOST_TEST(fired == 1);
}

BOOST_AUTO_TEST_CASE(an_unwatchable_descriptor_is_refused) {
  par::Reactor loop;
  BOOST_CHECK_THROW(static_cast<void>(loop.on_readable(1000, [] {})), std::system_error);
  BOOST_CHECK_THROW(static_cast<void>(loop.on_writable(-1, [] {})), std::logic_error);
  BOOST_CHECK_THROW(static_cast<void>(loop.on_signal(5000, [] {})), std::system_error);
  BOOST_CHECK_THROW(static_cast<void>(loop.on_signal(-1, [] {})), std::logic_error);
  BOOST_TEST(!loop.run_for(1ms));  // nothing is left of it
}

BOOST_AUTO_TEST_CASE(a_dropped_watch_restores_the_signal_handler) {
  static volatile sig_atomic_t received;
  received = 0;
  struct sigaction action = {};
  struct sigaction before = {};
  action.sa_handler = [](int) { received = received + 1; };
  ::sigaction(SIGUSR2, &action, &before);
  par::Reactor loop;
  int watched = 0;
  par::Watch usr1 = loop.on_signal(SIGUSR1, [&] { ++watched; });
  par::Watch usr2 = loop.on_signal(SIGUSR2, [&] {
    watched += 10;
    usr1.cancel();
    usr2.cancel();
  });
  ::raise(SIGUSR1);
  ::raise(SIGUSR2);
  loop.run();
  BOOST_TEST((watched == 11 || watched == 10));
  BOOST_TEST(received == 0);
  ::raise(SIGUSR2);
  BOOST_TEST(received == 1);
  // The signal is no longer watched: another reactor may watch it.
  par::Reactor other;
  par::Watch again = other.on_signal(SIGUSR1, [&] { again.cancel(); });
  ::raise(SIGUSR1);
  other.run();
  BOOST_TEST(!again.active());
  ::sigaction(SIGUSR2, &before, nullptr);
}

// ---- posts, further cases ----

BOOST_AUTO_TEST_CASE(posts_of_a_callback_run_before_run_returns) {
  par::Reactor loop;
  std::string order;
  loop.post([&] {
    order += "a";
    loop.post([&] {
      order += "c";
      loop.post([&] { order += "d"; });
    });
    order += "b";
  });
  loop.run();
  BOOST_TEST(order == "abcd");
  par::Timer timer = loop.after(1ms, [&] { loop.post([&] { order += "e"; }); });
  loop.run();
  BOOST_TEST(order == "abcde");
}

// The thread has done both before the current callback returns: the loop finds the post only by a look at its queue.
BOOST_AUTO_TEST_CASE(posts_before_the_last_hold_is_dropped_run) {
  par::Reactor loop;
  par::Hold hold = loop.hold();
  bool run = false;
  par::Timer timer = loop.after(1ms, [&] {
    std::thread([&] {
      loop.post([&] { run = true; });
      hold.release();
    }).join();
  });
  loop.run();
  BOOST_TEST(run);
}

BOOST_AUTO_TEST_CASE(stop_leaves_the_next_post_for_the_next_run) {
  par::Reactor loop;
  std::string order;
  for (const char* name : {"a", "b", "c"})
    loop.post([&order, &loop, name] {
      order += name;
      if (*name == 'b') loop.stop();
    });
  par::Timer timer = loop.after(1ms, [&] { order += "t"; });
  loop.run();
  BOOST_TEST(order == "ab");
  loop.run();
  BOOST_TEST(order == "abct");
}

BOOST_AUTO_TEST_CASE(each_exception_of_several_posts_is_reported) {
  par::Reactor loop;
  std::string order;
  for (const char* name : {"a", "b", "c"})
    loop.post([&order, name] {
      order += name;
      throw std::runtime_error(name);
    });
  for (const char* name : {"a", "b", "c"}) {
    BOOST_TEST(what_leaves(loop) == name);
    BOOST_TEST(order.back() == *name);  // the next one waits
  }
  BOOST_TEST(what_leaves(loop) == "nothing");
  BOOST_TEST(order == "abc");
}

BOOST_AUTO_TEST_CASE(a_post_wakes_a_sleeping_loop) {
  par::Reactor loop;
  int received = 0;
  std::thread thread([&, hold = loop.hold()]() mutable {
    for (int i = 1; i <= 200; ++i) {
      std::atomic<bool> done{false};
      loop.post([&] {
        ++received;
        done = true;
      });
      while (!done) std::this_thread::yield();
    }
    hold.release();
  });
  loop.run();
  thread.join();
  BOOST_TEST(received == 200);
}

BOOST_AUTO_TEST_CASE(a_hold_keeps_run_from_returning) {
  par::Reactor loop;
  par::Hold first = loop.hold();
  par::Hold second = loop.hold();
  par::Hold none;
  none.release();
  BOOST_TEST(loop.run_for(1ms));
  par::Hold moved = std::move(first);
  first.release();
  BOOST_TEST(loop.run_for(1ms));
  moved = std::move(second);  // drops its previous callback
  BOOST_TEST(loop.run_for(1ms));
  par::Timer timer = loop.after(1ms, [&] { moved.release(); });
  loop.run();
  moved.release();
  BOOST_TEST(!loop.run_for(1ms));
}

BOOST_AUTO_TEST_CASE(a_thread_may_drop_a_hold_after_the_reactor) {
  std::atomic<bool> gone{false};
  std::thread thread;
  {
    par::Reactor loop;
    thread = std::thread([&gone, hold = loop.hold()]() mutable {
      while (!gone) std::this_thread::yield();
      hold.release();
    });
  }
  gone = true;
  thread.join();
  BOOST_TEST(true);  // no crash
}

// ---- exceptions and stop, further cases ----

BOOST_AUTO_TEST_CASE(exceptions_of_every_kind_of_callback_are_thrown_out_of_run) {
  par::Reactor loop;
  PipeEnds ends;
  par::Timer timer = loop.after(0ms, [] { throw std::runtime_error("timer"); });
  BOOST_TEST(what_leaves(loop) == "timer");
  BOOST_REQUIRE(::write(ends.fd[1], "x", 1) == 1);
  par::Watch watch = loop.on_readable(ends.fd[0], [] { throw std::runtime_error("watch"); });
  BOOST_TEST(what_leaves(loop) == "watch");
  BOOST_TEST(what_leaves(loop) == "watch");  // the loop continues
  watch.cancel();
  watch = loop.on_signal(SIGUSR1, [] { throw std::runtime_error("signal"); });
  ::raise(SIGUSR1);
  BOOST_TEST(what_leaves(loop) == "signal");
  watch.cancel();
  loop.loop()->defer([] { throw std::runtime_error("deferred"); });
  BOOST_TEST(what_leaves(loop) == "deferred");
  int times = 0;
  par::Timer every = loop.every(1ms, [&] {
    if (++times == 3) every.cancel();
    throw std::runtime_error("every");
  });
  for (int i = 0; i < 3; ++i) BOOST_TEST(what_leaves(loop) == "every");
  BOOST_TEST(what_leaves(loop) == "nothing");
}

BOOST_AUTO_TEST_CASE(a_foreign_exception_is_thrown_out_of_run) {
  par::Reactor loop;
  loop.post([] { throw 42; });
  BOOST_CHECK_THROW(loop.run(), int);
  loop.post([] { throw 43; });
  BOOST_CHECK_THROW(loop.run_for(1s), int);
  loop.run();
}

BOOST_AUTO_TEST_CASE(an_exception_ends_the_turn_of_the_loop) {
  par::Reactor loop;
  std::string order;
  std::vector<par::Timer> timers;
  for (const char* name : {"a", "b", "c"})
    timers.push_back(loop.after(0ms, [&order, name] {
      order += name;
      throw std::runtime_error(name);
    }));
  work_for(10ms);  // all are due
  for (std::size_t i = 1; i <= 3; ++i) {
    const std::string left = what_leaves(loop);
    BOOST_TEST(order.size() == i);
    BOOST_TEST(left == order.substr(i - 1));
  }
  BOOST_TEST(what_leaves(loop) == "nothing");
}

BOOST_AUTO_TEST_CASE(stop_and_an_exception_may_come_together) {
  par::Reactor loop;
  bool later = false;
  loop.post([&] {
    loop.stop();
    throw std::runtime_error("both");
  });
  par::Timer timer = loop.after(1ms, [&] { later = true; });
  BOOST_TEST(what_leaves(loop) == "both");
  BOOST_TEST(!later);
  BOOST_TEST(what_leaves(loop) == "nothing");
  BOOST_TEST(later);
}

BOOST_AUTO_TEST_CASE(run_inside_every_kind_of_callback_is_misuse) {
  par::Reactor loop;
  int refused = 0;
  const auto run = [&] {
    try {
      loop.run();
    } catch (const std::logic_error&) {
      ++refused;
    }
    try {
      loop.run_for(1ms);
    } catch (const std::logic_error&) {
      ++refused;
    }
  };
  loop.post(run);
  loop.loop()->defer(run);
  par::Timer timer = loop.after(1ms, run);
  loop.run();
  BOOST_TEST(refused == 6);
  par::Reactor other;
  bool fired = false;
  loop.post([&] {
    par::Timer inner = other.after(1ms, [&] { fired = true; });
    other.run();  // another reactor may be run
  });
  loop.run();
  BOOST_TEST(fired);
}

BOOST_AUTO_TEST_CASE(a_reactor_may_be_destroyed_by_its_callback) {
  const int status = in_copy([] {
    auto loop = std::make_unique<par::Reactor>();
    loop->post([&] { loop.reset(); });
    loop->run();
    return 0;
  });
  BOOST_TEST(status == 0);
}

// Callbacks that are destroyed with a reactor may own its handles.
BOOST_AUTO_TEST_CASE(callbacks_that_own_handles_are_destroyed_with_their_reactor) {
  auto token = std::make_shared<int>(0);
  PipeEnds ends;
  {
    par::Reactor loop;
    for (int i = 0; i < 10; ++i) {
      auto inner = std::make_shared<par::Timer>(loop.after(1h, [token] { ++*token; }));
      auto watch =
          std::make_shared<par::Watch>(loop.on_readable(ends.fd[0], [token] { ++*token; }));
      loop.after(1h, [inner, watch, token] { ++*token; }).detach();
      loop.post([inner, watch, hold = loop.hold(), token] { ++*token; });
      loop.loop()->defer([inner, watch, token] { ++*token; });
    }
  }
  BOOST_TEST(*token == 0);
  BOOST_TEST(token.use_count() == 1);
}

// ---- borrowed bases, further cases ----

BOOST_AUTO_TEST_CASE(run_on_a_borrowed_base_throws_exceptions) {
  const Base base(::event_base_new());
  par::Reactor loop(base.get());
  bool reported = false;
  loop.on_exception([&](std::exception_ptr) { reported = true; });
  loop.post([] { throw std::runtime_error("mine"); });
  BOOST_TEST(what_leaves(loop) == "mine");
  BOOST_TEST(!reported);
  par::Timer timer = loop.after(0ms, [] { throw std::runtime_error("again"); });
  BOOST_TEST(what_leaves(loop) == "again");
  BOOST_TEST(what_leaves(loop) == "nothing");
}

BOOST_AUTO_TEST_CASE(events_of_the_program_keep_run_from_returning) {
  const Base base(::event_base_new());
  PipeEnds ends;
  struct Program {
    event* own = nullptr;
    int fired = 0;
    int fd = -1;
  } program;
  const OwnEvent own(::event_new(
      base.get(), ends.fd[0], EV_READ | EV_PERSIST,
      [](int fd, short, void* self) {
        Program& p = *static_cast<Program*>(self);
        char byte;
        if (::read(fd, &byte, 1) == 1 && ++p.fired == 3) ::event_del(p.own);
      },
      &program));
  program.own = own.get();
  ::event_add(own.get(), nullptr);
  par::Reactor loop(base.get());
  BOOST_TEST(loop.run_for(1ms));
  int written = 0;
  par::Timer timer = loop.every(1ms, [&] {
    BOOST_REQUIRE(::write(ends.fd[1], "x", 1) == 1);
    if (++written == 3) timer.cancel();
  });
  loop.run();
  BOOST_TEST(program.fired == 3);
  BOOST_TEST(written == 3);
}

BOOST_AUTO_TEST_CASE(a_reactor_leaves_a_borrowed_base_as_it_was) {
  const Base base(::event_base_new());
  int fired = 0;
  const OwnEvent own(::event_new(
      base.get(), -1, 0, [](int, short, void* p) { ++*static_cast<int*>(p); }, &fired));
  const timeval in{0, 1000};
  ::event_add(own.get(), &in);
  {
    par::Reactor loop(base.get());
    loop.after(0ms, [] { BOOST_ERROR("called"); }).detach();
    loop.post([] { BOOST_ERROR("called"); });
    loop.loop()->defer([] { BOOST_ERROR("called"); });
  }
  BOOST_TEST(::event_base_get_num_events(base.get(), EVENT_BASE_COUNT_ADDED) == 1);
  ::event_base_dispatch(base.get());  // returns: no event of the library is left
  BOOST_TEST(fired == 1);
}

BOOST_AUTO_TEST_CASE(everything_works_if_the_program_dispatches) {
  const Base base(::event_base_new());
  par::Reactor loop(base.get());
  std::string order;
  loop.post([&] { order += "p"; });
  loop.loop()->defer([&] { order += "d"; });
  par::Timer timer = loop.after(5ms, [&] {
    order += "t";
    ::event_base_loopbreak(base.get());
  });
  ::event_base_dispatch(base.get());
  BOOST_TEST(order.size() == 3u);
  BOOST_TEST(order.back() == 't');
}

BOOST_AUTO_TEST_CASE(on_exception_may_replace_itself) {
  const int status = in_copy([] {
    event_base* const base = ::event_base_new();
    par::Reactor loop(base);
    std::string received;
    loop.on_exception([&, big = std::string(100, 'b')](std::exception_ptr) {
      loop.on_exception([&](std::exception_ptr) {
        received += "second";
        ::event_base_loopbreak(base);
      });
      received += big;  // the callback is still intact
    });
    const par::Timer timer = loop.every(1ms, [] { throw std::runtime_error("mine"); });
    ::event_base_dispatch(base);
    return received == std::string(100, 'b') + "second" ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(an_exception_without_on_exception_ends_the_program) {
  const int status = in_copy([] {
    event_base* const base = ::event_base_new();
    par::Reactor loop(base);
    par::Timer timer = loop.after(0ms, [] { throw std::runtime_error("mine"); });
    ::event_base_dispatch(base);
    return 0;
  });
  BOOST_TEST(status == 1000 + SIGABRT);
}

// For run() and for the dispatch of the program.
BOOST_AUTO_TEST_CASE(run_inside_a_callback_of_the_program_is_misuse) {
  for (const bool by_run : {true, false}) {
    const int status = in_copy([by_run] {
      struct Program {
        par::Reactor* loop;
        event_base* base;
        bool refused = false;
      } program{};
      program.base = ::event_base_new();
      par::Reactor loop(program.base);
      program.loop = &loop;
      event* const own = ::event_new(
          program.base, -1, 0,
          [](int, short, void* self) {
            Program& p = *static_cast<Program*>(self);
            try {
              p.loop->run();
            } catch (const std::logic_error&) {
              p.refused = true;
            }
            ::event_base_loopbreak(p.base);
          },
          &program);
      const timeval at_once{0, 0};
      ::event_add(own, &at_once);
      const par::Timer timer = loop.after(1h, [] {});
      if (by_run)
        loop.run_for(1s);
      else
        ::event_base_dispatch(program.base);
      return program.refused ? 0 : 1;
    });
    BOOST_TEST(status == 0);
  }
}

// ---- in a process that the program has forked by itself ----

namespace {

// The state that is shared with the parent there, first of all libevent's own queue in the kernel.
struct InUse {
  explicit InUse(par::Reactor& of) : loop(of) {
    timer = of.every(1ms, [this] { ++ticks; });
    reading = of.on_readable(ends.fd[0], [this] {
      char byte;
      if (::read(ends.fd[0], &byte, 1) == 1) ++bytes;
    });
    of.post([this] { ++posts; });
    of.loop()->defer([this] { ++posts; });
  }
  bool goes_on() {
    const int before = ticks;
    if (::write(ends.fd[1], "x", 1) != 1) return false;
    for (int i = 0; i < 1000 && (bytes == 0 || ticks == before); ++i) loop.run_for(1ms);
    return bytes == 1 && ticks > before && posts == 2;
  }
  par::Reactor& loop;
  PipeEnds ends;
  par::Timer timer;
  par::Watch reading;
  int ticks = 0;
  int bytes = 0;
  int posts = 0;
};

}  // namespace

BOOST_AUTO_TEST_CASE(an_inherited_reactor_is_not_alive_and_does_not_disturb_the_parent) {
  for (const bool borrows : {false, true}) {
    const Base base(borrows ? ::event_base_new() : nullptr);
    auto loop =
        borrows ? std::make_unique<par::Reactor>(base.get()) : std::make_unique<par::Reactor>();
    auto use = std::make_unique<InUse>(*loop);
    for (const bool handles_first : {true, false}) {
      const int status = in_copy([&] {
        if (loop->loop()->alive() || loop->loop()->at_home()) return 1;
        if (par::living_loops() != 0) return 2;
        if (what_leaves(*loop).find("another process") == std::string::npos) return 3;
        if (handles_first) {
          use->timer.cancel();
          use->reading.cancel();
        }
        loop.reset();
        use->timer.cancel();
        use->reading.cancel();
        par::Reactor own;
        bool fired = false;
        par::Timer timer = own.after(1ms, [&] { fired = true; });
        own.run();
        return fired && use->ticks + use->posts == 0 ? 0 : 4;
      });
      BOOST_TEST(status == 0);
    }
    BOOST_TEST(use->goes_on());
  }
}

BOOST_AUTO_TEST_CASE(events_of_an_inherited_reactor_call_no_callback) {
  const Base base(::event_base_new());
  par::Reactor loop(base.get());
  InUse use(loop);
  BOOST_REQUIRE(::write(use.ends.fd[1], "x", 1) == 1);
  const int status = in_copy([&] {
    if (::event_reinit(base.get()) != 0) return 1;  // as libevent requires it
    work_for(5ms);
    for (int i = 0; i < 5; ++i) ::event_base_loop(base.get(), EVLOOP_NONBLOCK);
    if (use.ticks + use.bytes + use.posts != 0) return 2;
    // And they are no longer there: no loop spins because of them.
    return ::event_base_get_num_events(base.get(), EVENT_BASE_COUNT_ADDED) == 0 ? 0 : 3;
  });
  BOOST_TEST(status == 0);
  char byte;
  BOOST_TEST(::read(use.ends.fd[0], &byte, 1) == 1);
  BOOST_TEST(use.goes_on());
}

// That thread does not exist in the copy, and will never release the lock.
BOOST_AUTO_TEST_CASE(a_fork_may_happen_while_a_thread_posts) {
  auto loop = std::make_unique<par::Reactor>();
  std::atomic<bool> enough{false};
  std::thread thread([&] {
    while (!enough) loop->post([] {});
  });
  int right = 0;
  for (int i = 0; i < 20; ++i) {
    right += in_copy([&] {
               loop.reset();
               return 0;
             }) == 0;
  }
  enough = true;
  thread.join();
  BOOST_TEST(right == 20);
}

BOOST_AUTO_TEST_CASE(a_fork_that_returns_from_a_callback_gets_an_exception_from_run) {
  par::Reactor loop;
  InUse use(loop);
  const pid_t home = ::getpid();
  int status = -1;
  loop.post([&] {
    const pid_t pid = ::fork();
    if (pid == 0) return;
    ::waitpid(pid, &status, 0);
    loop.stop();
  });
  const std::string left = what_leaves(loop);
  if (::getpid() != home)
    ::_exit(left.find("another process") != std::string::npos && use.ticks + use.bytes == 0 ? 0
                                                                                            : 1);
  BOOST_TEST(left == "nothing");
  BOOST_TEST(status == 0);
  BOOST_TEST(use.goes_on());
}

BOOST_AUTO_TEST_CASE(a_fork_that_drops_its_watch_restores_the_signal) {
  par::Reactor loop;
  int received = 0;
  par::Watch watch = loop.on_signal(SIGUSR1, [&] { ++received; });
  const int status = in_copy([&] {
    watch.cancel();
    par::Reactor own;  // another reactor may watch signals there
    int received_there = 0;
    par::Watch there = own.on_signal(SIGUSR2, [&] { ++received_there; });
    ::raise(SIGUSR2);
    testing::turn(own, 3);
    if (received_there != 1) return 1;
    there.cancel();
    ::raise(SIGUSR1);
    return 2;
  });
  BOOST_TEST(status == 1000 + SIGUSR1);
  testing::turn(loop, 3);
  BOOST_TEST(received == 0);
  ::raise(SIGUSR1);
  testing::turn(loop, 3);
  BOOST_TEST(received == 1);
}

// ---- deferred callbacks ----

BOOST_AUTO_TEST_CASE(deferred_callbacks_run_after_ready_ones) {
  par::Reactor loop;
  std::string order;
  std::vector<par::Timer> timers;
  for (int i = 0; i < 3; ++i)
    timers.push_back(loop.after(0ms, [&] {
      order += "t";
      loop.loop()->defer([&] { order += "d"; });
    }));
  work_for(10ms);  // all are due
  loop.run();
  BOOST_TEST(order == "tttddd");
}

BOOST_AUTO_TEST_CASE(callbacks_may_be_deferred_outside_of_run) {
  par::Reactor loop;
  std::string order;
  loop.loop()->defer([&] { order += "a"; });
  loop.loop()->defer([&] { order += "b"; });
  BOOST_TEST(order == "");
  BOOST_TEST(!loop.run_for(1h));
  BOOST_TEST(order == "ab");
}

BOOST_AUTO_TEST_CASE(exceptions_of_deferred_callbacks_lose_no_callback) {
  par::Reactor loop;
  std::string order;
  for (const char* name : {"a", "b", "c"})
    loop.loop()->defer([&order, name] {
      order += name;
      throw std::runtime_error(name);
    });
  std::string received;
  for (int i = 0; i < 5; ++i) {
    const std::string said = what_leaves(loop);
    if (said == "nothing") break;
    received += said;
  }
  BOOST_TEST(order == "abc");
  BOOST_TEST(received == "abc");
}

BOOST_AUTO_TEST_CASE(stop_leaves_deferred_callbacks_for_the_next_run) {
  par::Reactor loop;
  std::string order;
  for (const char* name : {"a", "b", "c"})
    loop.loop()->defer([&order, &loop, name] {
      order += name;
      if (*name == 'a') loop.stop();
    });
  loop.run();
  BOOST_TEST(order == "a");
  loop.run();
  BOOST_TEST(order == "abc");
}

// A callback defers another one, and that one the next: other ready events get their turn.
BOOST_AUTO_TEST_CASE(deferred_callbacks_do_not_starve_the_loop) {
  par::Reactor loop;
  PipeEnds ends;
  BOOST_REQUIRE(::write(ends.fd[1], "x", 1) == 1);
  bool served = false;
  par::Watch watch = loop.on_readable(ends.fd[0], [&] {
    served = true;
    watch.cancel();
  });
  struct Again {
    par::Loop& loop;
    const bool& served;
    int& rounds;
    void operator()() const {
      if (!served && ++rounds < 100000) loop.defer(Again{loop, served, rounds});
    }
  };
  int rounds = 0;
  loop.loop()->defer(Again{*loop.loop(), served, rounds});
  loop.run();
  BOOST_TEST(served);
  BOOST_TEST(rounds < 100000);
}

// It would do so in the same iteration, and what becomes ready later would have to wait.
BOOST_AUTO_TEST_CASE(a_callback_that_always_defers_another_leaves_time_to_the_loop) {
  par::Reactor loop;
  struct Again {
    par::Loop& loop;
    const bool& over;
    int& rounds;
    void operator()() const {
      ++rounds;
      if (!over) loop.defer(Again{loop, over, rounds});
    }
  };
  bool over = false;
  int rounds = 0;
  loop.loop()->defer(Again{*loop.loop(), over, rounds});
  for (int frame = 1; frame <= 3; ++frame) {
    const int before = rounds;
    BOOST_TEST(loop.run_for(0ns));  // returns
    BOOST_TEST(rounds > before);
    BOOST_TEST(rounds <= 100 * frame);
  }
  const par::Timer timer = loop.after(1ms, [&] { over = true; });
  loop.run();
  BOOST_TEST(over);
}

// ---- Callback and Handler, further cases ----

namespace {

// Counts living objects.
struct Counted {
  explicit Counted(int& n) : living(&n) { ++*living; }
  Counted(const Counted& other) : living(other.living) { ++*living; }
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --*living; }
  int* living;
};

int three(int x) {
  return 3 * x;
}

}  // namespace

BOOST_AUTO_TEST_CASE(callbacks_may_have_many_shapes) {
  par::Callback<int(int)> pointer(&three);
  BOOST_TEST(pointer(2) == 6);
  par::Callback<long(int)> wider([](int x) { return x + 1; });
  BOOST_TEST(wider(1) == 2);
  int called = 0;
  par::Callback<void()> drops_the_result([&] { return ++called; });
  drops_the_result();
  BOOST_TEST(called == 1);
  par::Callback<int(std::unique_ptr<int>)> takes([](std::unique_ptr<int> p) { return *p; });
  BOOST_TEST(takes(std::make_unique<int>(8)) == 8);
  par::Callback<void(int&)> changes([](int& x) { ++x; });
  changes(called);
  BOOST_TEST(called == 2);
  par::Callback<const int&()> refers([&]() -> const int& { return called; });
  BOOST_TEST(&refers() == &called);
  par::Callback<int()> counts([n = 0]() mutable { return ++n; });
  BOOST_TEST(counts() == 1);
  BOOST_TEST(counts() == 2);
  par::Callback<void()> empty;
  par::Callback<void()> null(nullptr);
  BOOST_TEST(!empty);
  BOOST_TEST(!null);
  static_assert(!std::is_constructible_v<par::Callback<void(int)>, void (*)(std::string)>);
  static_assert(!std::is_copy_constructible_v<par::Callback<void()>>);
}

BOOST_AUTO_TEST_CASE(callbacks_preserve_alignment_and_are_destroyed_once) {
  int living = 0;
  struct alignas(64) Wide {
    char bytes[64];
  };
  {
    Wide wide{};
    par::Callback<bool()> aligned([wide, counted = Counted(living)] {
      return reinterpret_cast<std::uintptr_t>(&wide) % 64 == 0;
    });
    BOOST_TEST(living == 1);
    BOOST_TEST(aligned());
    auto moved = std::move(aligned);
    BOOST_TEST(living == 1);
    BOOST_TEST(moved());
    std::vector<par::Callback<bool()>> many;
    for (int i = 0; i < 100; ++i) many.push_back([counted = Counted(living)] { return true; });
    BOOST_TEST(living == 101);
    many.erase(many.begin(), many.begin() + 50);
    BOOST_TEST(living == 51);
    auto& same = moved;
    moved = std::move(same);
    BOOST_TEST(moved());
    moved = [counted = Counted(living)] { return false; };
    BOOST_TEST(living == 51);
    BOOST_TEST(!moved());
  }
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(a_capture_whose_copy_throws_leaks_nothing) {
  struct Throws {
    explicit Throws(int& n) : counted(n) {}
    Throws(const Throws& other) : counted(other.counted) { throw std::runtime_error("no copy"); }
    void operator()() const {}
    Counted counted;
  };
  int living = 0;
  {
    const Throws source(living);
    BOOST_CHECK_THROW(par::Callback<void()>{source}, std::runtime_error);
    struct Large : Throws {
      using Throws::Throws;
      char bytes[100] = {};
    };
    const Large large(living);
    BOOST_CHECK_THROW(par::Callback<void()>{large}, std::runtime_error);
  }
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(a_handler_keeps_its_callback_when_it_throws) {
  par::CallbackSlot<void(int)> handler;
  int sum = 0;
  handler.set([&](int x) {
    sum += x;
    if (x == 2) throw std::runtime_error("mine");
  });
  handler(1);
  BOOST_CHECK_THROW(handler(2), std::runtime_error);
  handler(4);
  BOOST_TEST(sum == 7);
}

BOOST_AUTO_TEST_CASE(a_handler_releases_its_callback_after_it_has_run) {
  int living = 0;
  par::CallbackSlot<void()> handler;
  int seen = 0;
  handler.set([&, counted = Counted(living)] {
    handler.release();
    seen = living;
    handler.set([] {});
  });
  BOOST_TEST(living == 1);
  handler();
  BOOST_TEST(seen == 1);
  BOOST_TEST(living == 0);
  BOOST_TEST(handler.is_set());
  handler.set(nullptr);
  BOOST_TEST(!handler.is_set());
}

BOOST_AUTO_TEST_CASE(a_running_handler_does_not_call_itself) {
  par::CallbackSlot<void()> handler;
  int depth = 0;
  handler.set([&] {
    if (++depth < 3) handler();
  });
  handler();
  BOOST_TEST(depth == 1);  // it is under way
  handler();
  BOOST_TEST(depth == 2);
  BOOST_TEST(handler.is_set());
}

// ---- memory of large messages ----

BOOST_AUTO_TEST_CASE(memory_of_a_large_message_is_reused) {
  constexpr std::size_t size = std::size_t{1} << 20;
  par::Reactor reactor;
  par::DraftMemory& memory = reactor.loop()->drafts();
  const auto capacity_of_next = [&] {
    const std::size_t capacity = memory.begin_draft()->bytes().capacity();
    memory.end_draft();
    return capacity;
  };
  par::Writer sent;
  par::Writer* draft = memory.begin_draft();
  BOOST_TEST(memory.begin_draft() == nullptr);  // one at a time
  draft->write(std::string(size, 'x'));
  const void* const place = draft->bytes().data();
  memory.lend(*draft);
  BOOST_TEST(draft->adopted().data() == place);
  BOOST_TEST(draft->size() == size);
  sent = std::move(*draft);
  memory.end_draft();

  // The memory is not replaced while the draft is in use, whatever is written meanwhile.
  draft = memory.begin_draft();
  draft->write(std::string(size, 'y'));
  memory.end_draft();
  BOOST_TEST(sent.adopted().data() == place);
  BOOST_TEST((sent.adopted() == std::string(size, 'x')));

  sent = par::Writer();
  draft = memory.begin_draft();
  BOOST_TEST(draft->bytes().data() == place);
  BOOST_TEST(draft->size() == 0U);
  memory.end_draft();

  int drafts = 0;
  while (capacity_of_next() >= size && drafts < 1000) ++drafts;
  BOOST_TEST(drafts > 10);
  BOOST_TEST(drafts < 100);
}

BOOST_AUTO_TEST_CASE(memory_of_a_huge_message_is_released) {
  par::Reactor reactor;
  par::DraftMemory& memory = reactor.loop()->drafts();
  par::Writer* draft = memory.begin_draft();
  draft->write(std::string(std::size_t{32} << 20, 'x'));
  memory.lend(*draft);
  memory.end_draft();
  BOOST_TEST(memory.begin_draft()->bytes().capacity() < std::size_t{1} << 20);
  memory.end_draft();
}
