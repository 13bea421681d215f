// loop.cpp - what went wrong with reactors: what was refused was given back, and the table of signals took them for
// one another; too few descriptors ended the program, and closed ones were called something else; exit() below
// run() was an abort; a loop of frames ran nothing, or nothing that did not keep it running; and files could not be
// watched, with a line of libevent on standard error.
#include "calling.hpp"
#include "elsewhere.hpp"

#include <evparallel/json_io.hpp>
#include <evparallel/pool.hpp>
#include <evparallel/reactor.hpp>

#include <event2/event.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
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

// ---- a loop of frames ----------------------------------------------------------------------------

namespace {

struct Pipe {
  Pipe() { BOOST_REQUIRE(::pipe2(fd, O_CLOEXEC | O_NONBLOCK) == 0); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    ::close(fd[0]);
    ::close(fd[1]);
  }
  int fd[2];
};

// Does `frame`, on a loop with nothing pending, until a killed snapshot is reported.
template <class F>
void see_a_loss(F frame) {
  par::Snapshot snapshot;
  int losses = 0;
  snapshot.on_lost([&](const par::ExitStatus&) { ++losses; });
  par::Reactor loop;
  auto half = par::run(
      loop, [](int x) { return x / 2; }, testing::in(snapshot));
  BOOST_TEST(testing::ask(loop, half, 84) == 42);
  BOOST_TEST(snapshot.alive());
  ::kill(snapshot.pid(), SIGKILL);
  BOOST_TEST(testing::wait_until([&] { return losses > 0; }, [&] { frame(loop); }));
  BOOST_TEST(losses == 1);
  BOOST_TEST(!snapshot.alive());
  BOOST_TEST(!loop.run_for(0ns));
}

// Does `frame`, on a loop with nothing pending, until the idle children of a pool have ended.
template <class F>
void see_idle_children_end(F frame) {
  par::Snapshot snapshot;
  par::Reactor loop;
  par::PoolOptions options;
  options.snapshots = {&snapshot};
  options.workers = 2;
  options.min_workers = 0;
  options.idle_timeout = 1ms;
  auto pool = par::pool(
      loop, [](int x) { return x / 2; }, options);
  int answer = 0;
  pool.submit(84, [&](par::Result<int> r) { answer = r.value(); });
  loop.run();
  BOOST_TEST(answer == 42);
  BOOST_TEST(pool.stats().started >= 1u);
  BOOST_TEST(
      testing::wait_until([&] { return pool.stats().workers.empty(); }, [&] { frame(loop); }));
}

}  // namespace

BOOST_AUTO_TEST_CASE(run_for_without_time_runs_once_each_callback_that_is_ready) {
  par::Reactor loop;
  const Pipe pipe;
  BOOST_REQUIRE(::write(pipe.fd[1], "x", 1) == 1);
  int reads = 0;
  int posts = 0;
  int timers = 0;
  const par::Watch watch = loop.on_readable(pipe.fd[0], [&] { ++reads; });  // stays readable
  struct PostAgain {
    par::Reactor& loop;
    int& posts;
    void operator()() const {
      ++posts;
      loop.post(PostAgain{loop, posts});
    }
  };
  loop.post(PostAgain{loop, posts});
  par::Timer timer;
  struct SetAgain {
    par::Reactor& loop;
    par::Timer& timer;
    int& timers;
    void operator()() const {
      ++timers;
      timer = loop.after(0ns, SetAgain{loop, timer, timers});
    }
  };
  timer = loop.after(0ns, SetAgain{loop, timer, timers});
  for (int frame = 1; frame <= 3; ++frame) {
    BOOST_TEST(loop.run_for(0ns));
    BOOST_TEST(reads == frame);
    BOOST_TEST(posts == frame);
    BOOST_TEST(timers == frame);
  }
}

BOOST_AUTO_TEST_CASE(run_for_without_time_returns_whether_work_is_left) {
  par::Reactor loop;
  BOOST_TEST(!loop.run_for(0ns));
  par::Timer late = loop.after(1h, [] {});
  BOOST_TEST(loop.run_for(0ns));
  late.cancel();
  bool came = false;
  const par::Timer due = loop.after(0ns, [&] { came = true; });
  BOOST_TEST(!loop.run_for(0ns));
  BOOST_TEST(came);
  const par::Hold hold = loop.hold();
  BOOST_TEST(loop.run_for(0ns));
}

// The smallest limit is over before the first turn.
BOOST_AUTO_TEST_CASE(run_for_makes_a_turn_however_short_its_limit_is) {
  par::Reactor loop;
  const par::Timer late = loop.after(1h, [] {});
  const Pipe pipe;
  BOOST_REQUIRE(::write(pipe.fd[1], "x", 1) == 1);
  int reads = 0;
  const par::Watch watch = loop.on_readable(pipe.fd[0], [&] { ++reads; });
  BOOST_TEST(loop.run_for(1ns));
  BOOST_TEST(reads >= 1);
}

BOOST_AUTO_TEST_CASE(run_for_without_time_throws_the_exception_of_a_callback) {
  par::Reactor loop;
  loop.post([] { throw std::runtime_error("thrown"); });
  BOOST_CHECK_THROW(loop.run_for(0ns), std::runtime_error);
  BOOST_TEST(!loop.run_for(0ns));
}

BOOST_AUTO_TEST_CASE(a_loop_of_frames_with_nothing_pending_reports_a_lost_snapshot) {
  see_a_loss([](par::Reactor& loop) { loop.run_for(0ns); });
  see_a_loss([](par::Reactor& loop) { loop.run_for(1ms); });
  see_a_loss([](par::Reactor& loop) { loop.run(); });
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_loop_of_frames_with_nothing_pending_ends_idle_children) {
  see_idle_children_end([](par::Reactor& loop) { loop.run_for(0ns); });
  see_idle_children_end([](par::Reactor& loop) { loop.run_for(1ms); });
  see_idle_children_end([](par::Reactor& loop) { loop.run(); });
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(run_for_with_nothing_pending_does_not_wait_for_its_limit) {
  par::Snapshot snapshot;
  {
    par::Reactor loop;
    auto half = par::run(
        loop, [](int x) { return x / 2; }, testing::in(snapshot));
    BOOST_TEST(testing::ask(loop, half, 84) == 42);
    BOOST_TEST(!loop.run_for(1h));  // the case would run out of time
    BOOST_TEST(!loop.run_for(par::Reactor::duration::max()));
  }
  snapshot.stop();
  testing::close_abandoned();
}

// ---- descriptors that are always ready -----------------------------------------------------------

namespace {

class File {
public:
  explicit File(const char* path, int flags = O_RDONLY) : fd_(::open(path, flags | O_CLOEXEC)) {
    BOOST_REQUIRE(fd_ >= 0);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(fd_); }
  int fd() const { return fd_; }

private:
  int fd_;
};

constexpr const char* some_file = "/proc/self/exe";

// The errno with which a watch is refused.  0: it is not.
template <class F>
int why_not(F watch) {
  try {
    watch();
    return 0;
  } catch (const std::system_error& error) {
    return error.code().value();
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(files_folders_and_dev_null_are_always_ready) {
  for (const char* path : {some_file, "/", "/dev/null"}) {
    const File file(path);
    par::Reactor loop;
    int reads = 0;
    int writes = 0;
    const par::Watch reading = loop.on_readable(file.fd(), [&] { ++reads; });
    par::Watch writing = loop.on_writable(file.fd(), [&] { ++writes; });
    BOOST_TEST(reading.active());
    for (int frame = 1; frame <= 3; ++frame) {
      BOOST_TEST(loop.run_for(0ns));
      BOOST_TEST(reads == frame);
      BOOST_TEST(writes == frame);
    }
    writing.cancel();
    loop.run_for(0ns);
    BOOST_TEST(reads == 4);
    BOOST_TEST(writes == 3);
  }
}

BOOST_AUTO_TEST_CASE(a_tool_reads_a_file_as_its_standard_input) {
  constexpr int length = 10000;
  BOOST_TEST(testing::elsewhere([] {
               std::FILE* const file = std::tmpfile();
               const std::vector<char> bytes(length, 'x');
               if (!file || ::write(::fileno(file), bytes.data(), bytes.size()) != length) return 1;
               ::lseek(::fileno(file), 0, SEEK_SET);
               ::dup2(::fileno(file), STDIN_FILENO);
               std::fclose(file);
               par::Reactor loop;
               ssize_t total = 0;
               int ends = 0;
               par::Watch watch;
               watch = loop.on_readable(STDIN_FILENO, [&] {
                 char some[1000];
                 const ssize_t count = ::read(STDIN_FILENO, some, sizeof some);
                 total += count;
                 if (count == 0 && ++ends == 3) watch.cancel();
               });
               loop.run();
               return total == length && ends == 3 ? 0 : 2;
             }) == 0);
}

BOOST_AUTO_TEST_CASE(a_watch_of_a_file_leaves_turns_to_all_others) {
  const File file(some_file);
  const Pipe full;
  const Pipe empty;
  BOOST_REQUIRE(::write(full.fd[1], "x", 1) == 1);
  par::Reactor loop;
  BOOST_TEST(::event_base_get_method(loop.base()) == std::string("epoll"));
  int of_file = 0;
  int of_pipe = 0;
  const par::Watch unread = loop.on_readable(empty.fd[0], [] { BOOST_ERROR("nothing is there"); });
  par::Watch reading = loop.on_readable(full.fd[0], [&] {
    if (++of_pipe == 3) loop.post([&] { loop.stop(); });
  });
  const par::Watch watch = loop.on_readable(file.fd(), [&] { ++of_file; });
  loop.run();
  BOOST_TEST(of_pipe >= 3);
  BOOST_TEST(of_file >= 2);
  reading.cancel();
  const par::Timer timer = loop.after(1ms, [&] { loop.stop(); });
  loop.run();
  BOOST_TEST(!timer.active());
  BOOST_TEST(::event_base_get_method(loop.base()) == std::string("epoll"));
}

BOOST_AUTO_TEST_CASE(a_watch_of_a_file_may_be_dropped_in_its_callback) {
  const File file(some_file);
  par::Reactor loop;
  int calls = 0;
  auto watch = std::make_unique<par::Watch>();
  *watch = loop.on_readable(file.fd(), [&] {
    ++calls;
    watch.reset();
  });
  loop.run();
  BOOST_TEST(calls == 1);
  par::Watch first;
  par::Watch second;
  const auto both = [&] {
    ++calls;
    first.cancel();
    second.cancel();
  };
  first = loop.on_readable(file.fd(), both);
  second = loop.on_readable(file.fd(), both);
  loop.run();
  BOOST_TEST(calls == 2);
}

BOOST_AUTO_TEST_CASE(a_detached_watch_of_a_file_ends_with_its_reactor) {
  const File file(some_file);
  int calls = 0;
  const auto alive = std::make_shared<int>(0);
  {
    par::Reactor loop;
    loop.on_readable(file.fd(), [&calls, alive] { ++calls; }).detach();
    BOOST_TEST(loop.run_for(0ns));
    BOOST_TEST(loop.run_for(0ns));
    BOOST_TEST(alive.use_count() == 2);
  }
  BOOST_TEST(calls == 2);
  BOOST_TEST(alive.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(an_exception_leaves_the_watch_of_a_file_in_place) {
  const File file(some_file);
  par::Reactor loop;
  const par::Watch watch =
      loop.on_readable(file.fd(), [] { throw std::runtime_error("from a file"); });
  for (int i = 0; i < 3; ++i) BOOST_CHECK_THROW(loop.run(), std::runtime_error);
  BOOST_TEST(watch.active());
}

BOOST_AUTO_TEST_CASE(a_watch_of_a_pipe_needs_no_additional_descriptor_and_one_of_a_file_does) {
  BOOST_TEST(testing::elsewhere([] {
               const File file(some_file);
               const Pipe pipe;
               par::Reactor loop;
               const auto watch = [&](int fd) {
                 return why_not([&] { loop.on_readable(fd, [] {}).cancel(); });
               };
               {
                 const Limited limited(64);
                 leave(0);
                 if (watch(pipe.fd[0]) != 0) return 1;
                 if (watch(file.fd()) != EMFILE) return 2;
               }
               return watch(file.fd()) == 0 ? 0 : 3;
             }) == 0);
}

// ---- the log of libevent -------------------------------------------------------------------------

namespace {

// Whether `f`, in a process of its own, returns 0 and writes nothing to standard error.
template <class F>
bool succeeds_silently(F f) {
  const Pipe said;
  const int status = testing::elsewhere([&] {
    ::dup2(said.fd[1], STDERR_FILENO);
    return f();
  });
  char c;
  return status == 0 && ::read(said.fd[0], &c, 1) < 0 && errno == EAGAIN;
}

int messages = 0;
void count_message(int, const char*) {
  ++messages;
}

}  // namespace

BOOST_AUTO_TEST_CASE(what_cannot_be_watched_is_refused_without_output) {
  BOOST_TEST(succeeds_silently([] {
    const File file(some_file);
    const File path("/", O_PATH);
    par::Reactor loop;
    const int closed = ::dup(file.fd());
    ::close(closed);
    constexpr int never_open = 100000;
    loop.on_readable(file.fd(), [] {}).cancel();
    loop.on_writable(file.fd(), [] {}).cancel();
    for (const int fd : {closed, never_open, path.fd()})
      if (why_not([&] { loop.on_readable(fd, [] {}).cancel(); }) != EBADF ||
          why_not([&] { loop.on_writable(fd, [] {}).cancel(); }) != EBADF)
        return 1;
    return loop.run_for(0ns) ? 2 : 0;  // nothing is left of it
  }));
}

BOOST_AUTO_TEST_CASE(a_signal_without_a_handler_is_refused_without_output) {
  BOOST_TEST(succeeds_silently([] {
    par::Reactor loop;
    constexpr int of_libc = 32;
    constexpr int too_high = 5000;
    for (const int signum : {0, SIGKILL, SIGSTOP, of_libc, too_high})
      if (why_not([&] { loop.on_signal(signum, [] {}).cancel(); }) != EINVAL) return 1;
    par::Reactor other;
    other.on_signal(SIGUSR1, [] {}).cancel();  // the refused ones hold nothing
    return 0;
  }));
}

BOOST_AUTO_TEST_CASE(a_watch_of_a_descriptor_that_was_closed_is_dropped_without_output) {
  BOOST_TEST(succeeds_silently([] {
    par::Reactor loop;
    int ends[2];
    if (::pipe(ends) != 0) return 1;
    par::Watch watch = loop.on_readable(ends[0], [] {});
    ::close(ends[0]);
    watch.cancel();
    ::close(ends[1]);
    return loop.run_for(0ns) ? 2 : 0;
  }));
}

BOOST_AUTO_TEST_CASE(run_inside_a_callback_of_its_base_is_refused_without_output) {
  BOOST_TEST(succeeds_silently([] {
    event_base* const base = ::event_base_new();
    int refused = 0;
    {
      par::Reactor one(base);
      par::Reactor other(base);
      const par::Timer timer = one.after(0ns, [&] {
        try {
          other.run_for(0ns);
        } catch (const std::logic_error&) {
          ++refused;
        }
      });
      ::event_base_loop(base, EVLOOP_ONCE);
    }
    ::event_base_free(base);
    return refused == 1 ? 0 : 1;
  }));
}

BOOST_AUTO_TEST_CASE(the_log_callback_of_the_program_stays) {
  BOOST_TEST(testing::elsewhere([] {
               ::event_set_log_callback(count_message);
               const File file(some_file);
               par::Reactor loop;
               loop.on_readable(file.fd(), [] {}).cancel();
               if (messages != 0) return 1;
               const par::Timer timer =
                   loop.after(0ns, [&] { ::event_base_loop(loop.base(), EVLOOP_NONBLOCK); });
               loop.run();
               return messages == 1 ? 0 : 2;
             }) == 0);
}

BOOST_AUTO_TEST_CASE(a_timer_whose_callback_owns_it_ends_with_its_loop) {
  bool destroyed = false;
  {
    const std::shared_ptr<bool> owned(&destroyed, [](bool* flag) { *flag = true; });
    par::Reactor loop;
    const auto timer = std::make_shared<par::Timer>();
    *timer = loop.after(std::chrono::hours(1), [timer, owned] {});
  }
  BOOST_TEST(destroyed);
}
