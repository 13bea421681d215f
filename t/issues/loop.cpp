// loop.cpp - faults of reactors: a refused signal was given back, and the table of signals confused reactors; a lack of
// descriptors ended the program, and closed descriptors led to another error; and exit() below run() aborted.
#include "elsewhere.hpp"

#include <evparallel/reactor.hpp>

#include <event2/event.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

BOOST_AUTO_TEST_CASE(a_refused_signal_watch_is_not_released) {
  par::Reactor first;
  par::Reactor second;
  par::Watch owner = first.on_signal(SIGUSR1, [] {});
  BOOST_CHECK_THROW(static_cast<void>(second.on_signal(SIGUSR2, [] {})), std::logic_error);
  // It is still refused: the first reactor watches the signal.
  BOOST_CHECK_THROW(static_cast<void>(second.on_signal(SIGUSR2, [] {})), std::logic_error);
  owner.cancel();
  par::Watch next = second.on_signal(SIGUSR2, [] {});
  BOOST_TEST(next.active());
  next.cancel();
  owner = first.on_signal(SIGUSR1, [] {});
  BOOST_TEST(owner.active());
}

// ---- missing descriptors -------------------------------------------------------------------------

namespace {

// Returns the previous limit.
rlim_t set_limit(rlim_t to) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t before = std::exchange(limit.rlim_cur, to);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  return before;
}

// A process that searches for leaks at its end needs descriptors again.
class Limited {
public:
  explicit Limited(rlim_t to) : before_(set_limit(to)) {}
  Limited(const Limited&) = delete;
  Limited& operator=(const Limited&) = delete;
  ~Limited() { set_limit(before_); }

private:
  rlim_t before_;
};

// Leaves room for `count` more descriptors under the limit.
void leave(int count) {
  std::vector<int> taken;
  for (int fd; (fd = ::dup(STDOUT_FILENO)) >= 0;) taken.push_back(fd);
  for (int i = 0; i < count; ++i) ::close(taken[static_cast<std::size_t>(i)]);
}

// 0: a reactor was made.  Otherwise the errno of the exception.
int why_refused() {
  try {
    const par::Reactor loop;
    return 0;
  } catch (const std::system_error& error) {
    return error.code().value();
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_reactor_without_descriptors_is_refused_and_the_program_continues) {
  constexpr int needed = 4;
  for (int left = 0; left < needed; ++left)
    BOOST_TEST(testing::elsewhere([left] {
                 const Limited limited(64);
                 leave(left);
                 return why_refused() == EMFILE && why_refused() == EMFILE ? 0 : 1;
               }) == 0);
  BOOST_TEST(testing::elsewhere([] {
               const Limited limited(64);
               leave(needed);
               return why_refused();
             }) == 0);
}

BOOST_AUTO_TEST_CASE(a_signal_watch_needs_no_additional_descriptor) {
  BOOST_TEST(testing::elsewhere([] {
               par::Reactor loop;
               const Limited limited(64);
               leave(0);
               bool came = false;
               par::Watch watch = loop.on_signal(SIGUSR1, [&] {
                 came = true;
                 loop.stop();
               });
               ::raise(SIGUSR1);
               loop.run();
               return came ? 0 : 1;
             }) == 0);
}

BOOST_AUTO_TEST_CASE(a_fork_of_the_program_can_drop_a_reactor_without_descriptors) {
  auto loop = std::make_unique<par::Reactor>();
  par::Timer timer = loop->after(1h, [] {});
  BOOST_TEST(testing::elsewhere([&] {
               const Limited limited(0);
               timer.cancel();
               loop.reset();
               ::_exit(0);  // the memory of its base remains there: no search for leaks
               return 0;
             }) == 0);
  bool came = false;
  par::Timer soon = loop->after(0ms, [&] { came = true; });
  timer.cancel();
  loop->run();
  BOOST_TEST(came);
}

BOOST_AUTO_TEST_CASE(a_loop_whose_descriptors_were_closed_reports_an_error) {
  BOOST_TEST(testing::elsewhere([] {
               par::Reactor loop;
               const par::Timer timer = loop.after(1h, [] {});
               constexpr int more_than_are_open = 256;
               for (int fd = STDERR_FILENO + 1; fd < more_than_are_open; ++fd) ::close(fd);
               for (int i = 0; i < 2; ++i) try {
                   loop.run();
                   return 1;
                 } catch (const std::system_error& error) {
                   if (error.code().value() != EBADF) return 2;
                 }
               return 0;
             }) == 0);
}

BOOST_AUTO_TEST_CASE(run_inside_a_callback_of_its_base_is_still_reported_as_such) {
  event_base* const base = ::event_base_new();
  {
    par::Reactor one(base);
    par::Reactor other(base);
    bool refused = false;
    const par::Timer timer = one.after(0ms, [&] {
      const par::Timer soon = other.after(0ms, [] {});
      BOOST_CHECK_THROW(other.run(), std::logic_error);
      refused = true;
    });
    one.run();
    BOOST_TEST(refused);
  }
  ::event_base_free(base);
}

// ---- a reactor that is destroyed while it runs ---------------------------------------------------

namespace {

constexpr int chosen = 7;

// A copy of the test program has its exit handlers: only the status counts.
template <class F>
int exits(F f) {
  return testing::elsewhere([&] {
    f();
    return 99;
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(exit_inside_run_keeps_its_status) {
  BOOST_TEST(exits([] {
               static par::Reactor loop;
               loop.after(0ms, [] { std::exit(chosen); }).detach();
               loop.run();
             }) == chosen);
  BOOST_TEST(exits([] {
               static auto loop = std::make_unique<par::Reactor>();
               static par::Timer timer = loop->every(1h, [] {});
               loop->post([] { std::exit(chosen); });
               loop->run();
             }) == chosen);
  BOOST_TEST(exits([] {
               static event_base* const base = ::event_base_new();
               static par::Reactor loop(base);
               static par::Timer timer = loop.after(0ms, [] { std::exit(chosen); });
               ::event_base_dispatch(base);
             }) == chosen);
}

BOOST_AUTO_TEST_CASE(a_reactor_destroyed_by_a_callback_calls_no_other_callback) {
  auto loop = std::make_unique<par::Reactor>();
  int calls = 0;
  std::vector<par::Timer> timers;
  for (int i = 0; i < 3; ++i)
    timers.push_back(loop->after(0ms, [&] {
      ++calls;
      loop.reset();
    }));
  loop->run();
  BOOST_TEST(!loop);
  BOOST_TEST(calls == 1);
  for (const par::Timer& timer : timers) BOOST_TEST(!timer.active());
}

BOOST_AUTO_TEST_CASE(an_exception_of_the_destroying_callback_is_thrown_out_of_run) {
  auto loop = std::make_unique<par::Reactor>();
  const par::Timer timer = loop->after(0ms, [&] {
    loop.reset();
    throw std::runtime_error("gone");
  });
  BOOST_CHECK_THROW(loop->run_for(60s), std::runtime_error);
}

BOOST_AUTO_TEST_CASE(a_reactor_on_a_dispatched_base_may_be_destroyed_in_a_callback) {
  event_base* const base = ::event_base_new();
  auto loop = std::make_unique<par::Reactor>(base);
  int calls = 0;
  std::vector<par::Timer> timers;
  for (int i = 0; i < 3; ++i)
    timers.push_back(loop->after(0ms, [&] {
      ++calls;
      loop.reset();
    }));
  ::event_base_dispatch(base);  // it watches nothing any more
  BOOST_TEST(calls == 1);
  ::event_base_free(base);
}
