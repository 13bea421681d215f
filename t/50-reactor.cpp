// 50-reactor.cpp - the event loop: timers, watches, posts, and what run() does.
#include "testing.hpp"

#include "handler.hpp"
#include "watch.hpp"

#include <evparallel/reactor.hpp>

#include <event2/event.h>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <memory>
#include <stdexcept>
#include <thread>

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

}  // namespace

BOOST_AUTO_TEST_CASE(run_returns_when_nothing_is_pending) {
  par::Reactor loop;
  loop.run();
  loop.run();
  BOOST_TEST(loop.base() != nullptr);
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
  BOOST_TEST(a.active());
  loop.run();
  BOOST_TEST((order == std::vector<int>{10, 20, 30}));
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
    fired += big.size() == 100;  // the callback is still whole
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

BOOST_AUTO_TEST_CASE(signals_are_watched_by_one_reactor_only) {
  par::Reactor loop;
  int heard = 0;
  par::Watch watch = loop.on_signal(SIGUSR1, [&] {
    if (++heard == 2)
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
  BOOST_TEST(heard == 2);
}

BOOST_AUTO_TEST_CASE(post_from_threads_in_order_with_a_hold) {
  par::Reactor loop;
  constexpr int each = 1000;
  std::vector<std::vector<int>> heard(3);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < heard.size(); ++t)
    threads.emplace_back([&loop, &heard, t, hold = loop.hold()]() mutable {
      for (int i = 0; i < each; ++i) loop.post([&heard, t, i] { heard[t].push_back(i); });
      hold.release();
    });
  loop.run();
  for (std::thread& thread : threads) thread.join();
  loop.run();  // what was posted last, where the hold was dropped first
  for (const auto& numbers : heard) {
    BOOST_REQUIRE(numbers.size() == static_cast<std::size_t>(each));
    BOOST_TEST(std::is_sorted(numbers.begin(), numbers.end()));
  }
}

BOOST_AUTO_TEST_CASE(post_takes_what_can_only_be_moved_and_runs_what_was_posted_before_run) {
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
  BOOST_TEST(true);  // it came here
}

BOOST_AUTO_TEST_CASE(run_for_tells_whether_work_is_left) {
  par::Reactor loop;
  BOOST_TEST(!loop.run_for(1ms));
  bool fired = false;
  par::Timer timer = loop.after(50ms, [&] { fired = true; });
  BOOST_TEST(loop.run_for(1ms));
  BOOST_TEST(!fired);
  BOOST_TEST(!loop.run_for(10s));
  BOOST_TEST(fired);
}

BOOST_AUTO_TEST_CASE(stop_returns_after_the_callback_under_way_and_is_nothing_outside) {
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

BOOST_AUTO_TEST_CASE(an_exception_leaves_run_and_the_loop_is_as_good_as_before) {
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

BOOST_AUTO_TEST_CASE(this_reactor_is_for_children) {
  BOOST_CHECK_THROW(par::this_reactor(), std::logic_error);
}

BOOST_AUTO_TEST_CASE(a_borrowed_base_is_run_together_with_the_programs_own_events) {
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

BOOST_AUTO_TEST_CASE(a_borrowed_base_that_the_program_dispatches) {
  const Base base(::event_base_new());
  {
    par::Reactor loop(base.get());
    std::string heard;
    loop.on_exception([&](std::exception_ptr exception) {
      try {
        std::rethrow_exception(exception);
      } catch (const std::exception& e) {
        heard = e.what();
      }
      ::event_base_loopbreak(base.get());
    });
    par::Timer timer = loop.after(1ms, [] { throw std::runtime_error("mine"); });
    ::event_base_dispatch(base.get());
    BOOST_TEST(heard == "mine");
  }
}

BOOST_AUTO_TEST_CASE(what_is_deferred_runs_in_order_and_not_inside_the_caller) {
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

BOOST_AUTO_TEST_CASE(callbacks_hold_what_is_big_and_what_can_only_be_moved) {
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
  par::Handler<void(int)> handler;
  int sum = 0;
  handler(1);  // empty: nothing happens
  handler.set([&](int x) {
    sum += x;
    handler.set([&](int y) {
      sum += 10 * y;
      handler.release();
      sum += 100;  // still whole
    });
  });
  BOOST_TEST(handler.is_set());
  handler(1);
  handler(1);
  handler(1);
  BOOST_TEST(sum == 111);
  BOOST_TEST(!handler.is_set());
}
