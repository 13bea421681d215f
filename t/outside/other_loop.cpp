// other_loop.cpp - a Reactor in a loop of the program, which knows only its descriptor: fd(), until_next(), poll().
#include "calling.hpp"
#include "elsewhere.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <event2/event.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

bool is_readable(int fd, int ms = 0) {
  pollfd one{fd, POLLIN, 0};
  return ::poll(&one, 1, ms) > 0;
}

// The loop of the program.  It makes a turn only if the descriptor is readable, so a missed wake-up fails the case.
template <class F>
bool poll_until(par::Reactor& loop, F done, const char* file = __builtin_FILE(),
                int line = __builtin_LINE()) {
  const auto turn = [&] {
    if (is_readable(loop.fd(), 1000)) loop.poll();
  };
  return testing::wait_until(done, turn, file, line);
}

// Makes turns until the descriptor is quiet; returns how many, at most `most`.
int turns_until_quiet(par::Reactor& loop, int most = 100) {
  int turns = 0;
  for (; turns < most && is_readable(loop.fd()); ++turns) loop.poll();
  return turns;
}

struct SocketPair {
  SocketPair() {
    BOOST_REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) == 0);
  }
  ~SocketPair() {
    for (const int end : fd) ::close(end);
  }
  void write() const { BOOST_TEST(::write(fd[1], "x", 1) == 1); }
  void read() const {
    char byte;
    BOOST_TEST(::read(fd[0], &byte, 1) == 1);
  }
  int fd[2];
};

struct TemporaryFile {
  TemporaryFile() : file(std::tmpfile()) { BOOST_REQUIRE(file); }
  ~TemporaryFile() { std::fclose(file); }
  std::FILE* file;
};

int plus_one(int x) {
  return x + 1;
}

template <class F>
std::string what_leaves(F f) {
  try {
    f();
    return "nothing";
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

// ---- calls ----

BOOST_AUTO_TEST_CASE(ten_thousand_calls_of_run_are_answered_in_another_loop) {
  par::Reactor loop;
  auto f = par::run(loop, plus_one);
  constexpr int many = 10000;
  int sent = 0;
  long sum = 0;
  int answers = 0;
  std::function<void()> send = [&] {
    if (sent == many) return;
    f(sent++, [&](par::Result<int> r) {
      sum += r.value();
      ++answers;
      send();
    });
  };
  for (int i = 0; i < 50; ++i) send();
  BOOST_TEST(poll_until(loop, [&] { return answers == many; }));
  BOOST_TEST(sum == long{many} * (many + 1) / 2);
}

BOOST_AUTO_TEST_CASE(ten_thousand_calls_of_a_pool_are_answered_in_another_loop) {
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 3;
  auto pool = par::pool(loop, plus_one, options);
  constexpr int many = 10000;
  long sum = 0;
  int answers = 0;
  for (int i = 0; i < many; ++i)
    pool.submit(i, [&](par::Result<int> r) {
      sum += r.value();
      ++answers;
    });
  BOOST_TEST(poll_until(loop, [&] { return answers == many; }));
  BOOST_TEST(sum == long{many} * (many + 1) / 2);
}

// A remote function that is always busy: each answer makes the next call.
struct Chain {
  explicit Chain(par::Reactor& loop) : f(par::run(loop, plus_one)) {}
  void next() {
    f->operator()(answers, [this](par::Result<int> r) {
      right = right && r.value() == answers + 1;
      ++answers;
      if (on_answer) on_answer();
      if (f && !ended) next();
    });
  }
  std::optional<par::Remote<int(int)>> f;
  par::Callback<void()> on_answer{};
  int answers = 0;
  bool right = true;
  bool ended = false;
};

BOOST_AUTO_TEST_CASE(a_busy_child_keeps_no_other_event_waiting_in_another_loop) {
  par::Reactor loop;
  Chain busy(loop);
  busy.next();
  BOOST_TEST(poll_until(loop, [&] { return busy.answers > 100; }));
  const SocketPair pair;
  int read = 0;
  const par::Watch watch = loop.on_readable(pair.fd[0], [&] {
    pair.read();
    ++read;
  });
  for (int i = 1; i <= 20; ++i) {
    pair.write();
    // The limit is one of turns: the child is busy for as long as it gets calls.
    for (int turns = 0; turns < 50 && read < i; ++turns)
      if (is_readable(loop.fd(), 1000)) loop.poll();
    BOOST_TEST(read == i);
    bool posted = false;
    bool timed = false;
    loop.post([&] { posted = true; });
    const par::Timer now = loop.after(0ns, [&] { timed = true; });
    loop.poll();
    BOOST_TEST(posted);
    BOOST_TEST(timed);
  }
  busy.ended = true;
  BOOST_TEST(poll_until(loop, [&] { return busy.f->pending() == 0; }));
  BOOST_TEST(busy.right);
}

BOOST_AUTO_TEST_CASE(any_answer_of_a_chain_may_throw_or_end_the_chain_in_another_loop) {
  par::Reactor loop;
  static_cast<void>(loop.fd());
  for (int last = 1; last <= 25; ++last) {
    Chain thrower(loop);
    thrower.on_answer = [&] {
      if (thrower.answers == last) throw std::runtime_error("in the chain");
    };
    thrower.next();
    const auto turn_until_thrown = [&] {
      return what_leaves([&] { poll_until(loop, [&] { return thrower.answers > last; }); });
    };
    BOOST_TEST(turn_until_thrown() == "in the chain");
    BOOST_TEST(thrower.answers == last);
    thrower.next();
    BOOST_TEST(turn_until_thrown() == "nothing");
    thrower.ended = true;

    Chain dropped(loop);
    dropped.on_answer = [&] {
      if (dropped.answers == last) dropped.f.reset();
    };
    dropped.next();
    BOOST_TEST(poll_until(loop, [&] { return !dropped.f; }));
    BOOST_TEST(poll_until(loop, [&] { return thrower.f->pending() == 0; }));
  }
}

BOOST_AUTO_TEST_CASE(children_that_answer_in_turns_are_heard_in_another_loop) {
  par::Reactor loop;
  std::vector<std::unique_ptr<Chain>> chains;
  for (int i = 0; i < 3; ++i) {
    chains.push_back(std::make_unique<Chain>(loop));
    chains.back()->ended = true;  // one call at a time
  }
  for (std::size_t i = 0; i < 300; ++i) {
    Chain& one = *chains[i % chains.size()];
    one.next();
    BOOST_TEST(poll_until(loop, [&] { return one.f->pending() == 0; }));
  }
  for (const auto& chain : chains) BOOST_TEST(chain->answers == 100);
}

BOOST_AUTO_TEST_CASE(a_process_and_large_messages_work_in_another_loop) {
  par::Reactor loop;
  auto child = par::process(loop, [](par::Pipe<std::string, std::string> pipe) {
    pipe.on_message([pipe](std::string s) { pipe.send(s + "!"); });
  });
  const std::string large(4 << 20, 'x');
  std::vector<std::size_t> sizes;
  bool ended = false;
  child.on_message([&](std::string s) {
    sizes.push_back(s.size());
    if (sizes.size() == 3) child.close();
  });
  child.on_exit([&](const par::ExitStatus& status) { ended = status.exited(); });
  for (int i = 0; i < 3; ++i) child.send(large);
  BOOST_TEST(poll_until(loop, [&] { return ended; }));
  BOOST_TEST(sizes == std::vector<std::size_t>(3, large.size() + 1),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(the_descriptor_may_be_asked_for_while_children_and_calls_exist) {
  par::Reactor loop;
  auto f = par::run(loop, plus_one);
  auto pool = par::pool(loop, plus_one);
  int answers = 0;
  const auto count = [&](par::Result<int> r) { answers += r.value() == 8; };
  f(7, count);
  pool.submit(7, count);
  loop.run();
  BOOST_TEST(answers == 2);
  f(7, count);
  pool.submit(7, count);
  bool timed = false;
  const par::Timer timer = loop.after(1ms, [&] { timed = true; });
  BOOST_TEST(poll_until(loop, [&] { return answers == 4 && timed; }));
}

BOOST_AUTO_TEST_CASE(run_and_wait_work_after_the_descriptor_was_asked_for) {
  par::Reactor loop;
  static_cast<void>(loop.fd());
  auto f = par::run(loop, plus_one);
  BOOST_TEST(f.wait(1).value() == 2);
  int fired = 0;
  const par::Timer first = loop.after(2ms, [&] { ++fired; });
  const par::Timer second = loop.after(1ms, [&] { ++fired; });
  loop.run();
  BOOST_TEST(fired == 2);
  BOOST_TEST(turns_until_quiet(loop) <= 1);
  BOOST_TEST(!loop.until_next().has_value());
}

BOOST_AUTO_TEST_CASE(an_abandoned_call_is_reported_in_another_loop) {
  par::Reactor loop;
  BOOST_TEST(turns_until_quiet(loop) <= 1);
  std::optional<par::Errc> heard;
  auto f = par::run(loop, plus_one);
  f(1, [&](par::Result<int> r) { heard = r.error().code(); });
  f = {};
  BOOST_TEST(!heard.has_value());
  BOOST_TEST(is_readable(loop.fd()));
  BOOST_TEST(poll_until(loop, [&] { return heard.has_value(); }));
  BOOST_TEST((heard == par::Errc::cancelled));
}

// Nothing but the loop itself knows of it.
BOOST_AUTO_TEST_CASE(a_call_that_cannot_be_sent_is_reported_in_another_loop) {
  par::Reactor loop;
  par::Options options;
  options.max_message = 1024;
  auto f = par::run(
      loop, [](std::string s) { return static_cast<int>(s.size()); }, options);
  BOOST_TEST(f.wait("12").value() == 2);
  BOOST_TEST(testing::eventually([&] { return turns_until_quiet(loop) == 0; }));
  std::optional<par::Errc> heard;
  f(std::string(4096, 'x'), [&](par::Result<int> r) { heard = r.error().code(); });
  BOOST_TEST(!heard.has_value());
  BOOST_TEST(is_readable(loop.fd()));
  loop.poll();
  BOOST_TEST((heard == par::Errc::too_large));
}

BOOST_AUTO_TEST_CASE(a_deadline_ends_a_call_in_another_loop) {
  par::Reactor loop;
  auto f = par::run(loop, [](int) {
    for (;;) ::pause();
    return 0;
  });
  std::optional<par::Errc> heard;
  const auto start = Clock::now();
  f(1, [&](par::Result<int> r) { heard = r.error().code(); }).set_deadline(50ms);
  BOOST_TEST(poll_until(loop, [&] { return heard.has_value(); }));
  BOOST_TEST((heard == par::Errc::deadline));
  BOOST_TEST((Clock::now() - start >= 50ms));
}

// ---- timers ----

BOOST_AUTO_TEST_CASE(timers_come_in_order_and_never_early_in_another_loop) {
  for (const bool before : {false, true}) {  // before the first fd()
    par::Reactor loop;
    if (!before) static_cast<void>(loop.fd());
    std::mt19937 random(testing::seed(5));
    // A timer is due between these two times, since the clock goes on while it is set.
    struct Due {
      Clock::time_point earliest;
      Clock::time_point latest;
    };
    constexpr std::size_t many = 200;
    std::vector<Due> due(many);
    std::vector<par::Timer> timers;
    std::size_t fired = 0;
    bool early = false;
    bool late = false;  // an earlier one is called later
    Clock::time_point last{};
    for (std::size_t i = 0; i < many; ++i) {
      const std::chrono::milliseconds time(random() % 40);
      due[i].earliest = Clock::now() + time;
      timers.push_back(loop.after(time, [&, i] {
        ++fired;
        early = early || Clock::now() < due[i].earliest;
        late = late || due[i].latest < last;
        last = std::max(last, due[i].earliest);
      }));
      due[i].latest = Clock::now() + time;
    }
    std::size_t expected = many;
    for (std::size_t i = 0; i < many; i += 7, --expected) timers[i].cancel();
    BOOST_TEST(poll_until(loop, [&] { return fired == expected; }));
    BOOST_TEST(!early);
    // Before, libevent counts, whose clock is 4 ms coarse.
    if (!before) BOOST_TEST(!late);
    BOOST_TEST(turns_until_quiet(loop) == 0);
  }
}

BOOST_AUTO_TEST_CASE(a_repeated_timer_comes_again_and_again_in_another_loop) {
  par::Reactor loop;
  int ticks = 0;
  const auto start = Clock::now();
  loop.every(2ms,
             [&](par::Timer& clock) {
               if (++ticks == 10) clock.cancel();
             })
      .detach();
  BOOST_TEST(poll_until(loop, [&] { return ticks == 10; }));
  BOOST_TEST((Clock::now() - start >= 20ms));
  BOOST_TEST(turns_until_quiet(loop) == 0);
}

// A timer of the mirror and libevent's coarse one end the wait at different times.
BOOST_AUTO_TEST_CASE(one_timer_takes_one_turn_of_another_loop) {
  par::Reactor loop;
  static_cast<void>(loop.fd());
  for (int i = 0; i < 20; ++i) {
    bool fired = false;
    const par::Timer timer = loop.after(3ms, [&] { fired = true; });
    BOOST_TEST(testing::is_ready(loop.fd()));
    loop.poll();
    BOOST_TEST(fired);
    BOOST_TEST(!is_readable(loop.fd()));
  }
}

BOOST_AUTO_TEST_CASE(until_next_is_the_time_to_the_first_timer) {
  for (const bool with_descriptor : {false, true}) {
    par::Reactor loop;
    if (with_descriptor) static_cast<void>(loop.fd());
    BOOST_TEST(!loop.until_next().has_value());
    par::Timer late = loop.after(2h, [] {});
    par::Timer sooner = loop.after(1h, [] {});
    BOOST_TEST((loop.until_next() > 59min && loop.until_next() <= 1h));
    sooner = {};
    BOOST_TEST((loop.until_next() > 1h && loop.until_next() <= 2h));
    sooner = loop.after(0ns, [] {});
    BOOST_TEST(testing::eventually([&] { return loop.until_next() == 0ns; }));
    loop.poll();
    BOOST_TEST((loop.until_next() > 1h && loop.until_next() <= 2h));
    late = {};
    BOOST_TEST(!loop.until_next().has_value());
    late = loop.after(std::chrono::nanoseconds::max(), [] {});
    BOOST_TEST((loop.until_next() > std::chrono::hours(24 * 365)));
  }
}

BOOST_AUTO_TEST_CASE(until_next_is_zero_while_there_is_something_to_do) {
  for (const bool with_descriptor : {false, true}) {
    par::Reactor loop;
    if (with_descriptor) static_cast<void>(loop.fd());
    const SocketPair pair;
    int calls = 0;
    const par::Watch watch = loop.on_readable(pair.fd[0], [&] {
      pair.read();
      ++calls;
    });
    const par::Timer never = loop.after(1h, [] {});
    BOOST_TEST((loop.until_next() > 1min));
    pair.write();
    BOOST_TEST((loop.until_next() == 0ns));
    loop.poll();
    BOOST_TEST((loop.until_next() > 1min));
    loop.post([&] { ++calls; });
    BOOST_TEST((loop.until_next() == 0ns));
    loop.poll();
    BOOST_TEST((loop.until_next() > 1min));
    auto f = par::run(loop, plus_one);
    f(1, [&](par::Result<int>) { ++calls; });
    f = {};
    BOOST_TEST((loop.until_next() == 0ns));
    loop.poll();
    BOOST_TEST(calls == 3);
  }
}

// A frame of a game: until_next() without fd().
BOOST_AUTO_TEST_CASE(a_loop_may_use_until_next_without_the_descriptor) {
  par::Reactor loop;
  auto f = par::run(loop, plus_one);
  int answers = 0;
  for (int i = 0; i < 100; ++i) f(i, [&](par::Result<int> r) { answers += r.has_value(); });
  const std::size_t before = testing::count_descriptors();
  BOOST_TEST(testing::eventually([&] {
    if (loop.until_next() == 0ns) loop.poll();
    return answers == 100;
  }));
  BOOST_TEST(testing::count_descriptors() == before);
}

// ---- other threads, deferred work, signals ----

BOOST_AUTO_TEST_CASE(a_post_of_a_thread_wakes_another_loop) {
  par::Reactor loop;
  constexpr int many = 1000;
  std::vector<int> received;
  static_cast<void>(loop.fd());
  std::thread thread([&] {
    for (int i = 0; i < many; ++i) loop.post([&, i] { received.push_back(i); });
  });
  BOOST_TEST(poll_until(loop, [&] { return received.size() == many; }));
  thread.join();
  BOOST_TEST(std::is_sorted(received.begin(), received.end()));
  BOOST_TEST(turns_until_quiet(loop) <= 1);
}

BOOST_AUTO_TEST_CASE(signals_wake_another_loop) {
  for (const bool before : {false, true}) {  // the watch exists before the first fd()
    par::Reactor loop;
    if (!before) static_cast<void>(loop.fd());
    int received = 0;
    par::Watch first = loop.on_signal(SIGUSR1, [&] { received += 1; });
    par::Watch second = loop.on_signal(SIGUSR2, [&] { received += 10; });
    BOOST_TEST(turns_until_quiet(loop) <= 1);
    ::raise(SIGUSR1);
    BOOST_TEST(is_readable(loop.fd()));
    BOOST_TEST(poll_until(loop, [&] { return received == 1; }));
    ::raise(SIGUSR2);
    BOOST_TEST(poll_until(loop, [&] { return received == 11; }));
    first.cancel();
    first = loop.on_signal(SIGUSR1, [&] { received += 100; });
    ::raise(SIGUSR1);
    BOOST_TEST(poll_until(loop, [&] { return received == 111; }));
    BOOST_TEST(!is_readable(loop.fd()));
  }
}

// ---- watches ----

BOOST_AUTO_TEST_CASE(a_regular_file_is_always_ready_in_another_loop) {
  const TemporaryFile file;
  for (const bool before : {false, true}) {
    par::Reactor loop;
    if (!before) static_cast<void>(loop.fd());
    int calls = 0;
    bool timed = false;
    par::Watch watch = loop.on_readable(::fileno(file.file), [&] { ++calls; });
    const par::Timer timer = loop.after(2ms, [&] { timed = true; });
    while (!(timed && calls >= 10) && is_readable(loop.fd())) loop.poll();
    BOOST_TEST(calls >= 10);
    BOOST_TEST(timed);
    BOOST_TEST(is_readable(loop.fd()));
    BOOST_TEST((loop.until_next() == 0ns));
    watch.cancel();
    BOOST_TEST(turns_until_quiet(loop) <= 1);
  }
}

BOOST_AUTO_TEST_CASE(several_watches_of_one_descriptor_wake_another_loop) {
  const SocketPair pair;
  par::Reactor loop;
  const int fd = loop.fd();
  int first = 0;
  int second = 0;
  int writable = 0;
  std::optional<par::Watch> one = loop.on_readable(pair.fd[0], [&] { ++first; });
  std::optional<par::Watch> two = loop.on_readable(pair.fd[0], [&] { ++second; });
  BOOST_TEST(!is_readable(fd));
  std::optional<par::Watch> three = loop.on_writable(pair.fd[0], [&] { ++writable; });
  BOOST_TEST(is_readable(fd));
  loop.poll();
  BOOST_TEST((first == 0 && second == 0 && writable == 1));
  three.reset();
  BOOST_TEST(!is_readable(fd));
  pair.write();
  loop.poll();
  BOOST_TEST((first == 1 && second == 1 && writable == 1));
  one.reset();
  BOOST_TEST(is_readable(fd));
  loop.poll();
  BOOST_TEST((first == 1 && second == 2));
  three = loop.on_writable(pair.fd[0], [&] { ++writable; });
  two.reset();
  loop.poll();
  BOOST_TEST((second == 2 && writable == 2));
  pair.read();
  BOOST_TEST(is_readable(fd));
  three.reset();
  BOOST_TEST(!is_readable(fd));
}

BOOST_AUTO_TEST_CASE(watches_come_and_go_in_callbacks_in_another_loop) {
  const SocketPair pairs[3];
  par::Reactor loop;
  static_cast<void>(loop.fd());
  std::string order;
  std::optional<par::Watch> watches[3];
  // Each callback drops its own watch and makes the next one.
  std::function<void(std::size_t)> watch = [&](std::size_t i) {
    watches[i] = loop.on_readable(pairs[i].fd[0], [&, i] {
      pairs[i].read();
      order += static_cast<char>('a' + i);
      watches[i].reset();
      watch((i + 1) % 3);
    });
  };
  for (const SocketPair& pair : pairs)
    for (int i = 0; i < 3; ++i) pair.write();
  watch(0);
  BOOST_TEST(poll_until(loop, [&] { return order.size() == 9; }));
  BOOST_TEST(order == "abcabcabc");
  BOOST_TEST(!is_readable(loop.fd()));
}

BOOST_AUTO_TEST_CASE(a_descriptor_that_is_closed_before_its_watch_does_no_harm_in_another_loop) {
  par::Reactor loop;
  const int fd = loop.fd();
  std::optional<SocketPair> pair(std::in_place);
  par::Watch watch = loop.on_readable(pair->fd[0], [] {});
  pair->write();
  BOOST_TEST(is_readable(fd));
  const int number = pair->fd[0];
  pair.reset();
  BOOST_TEST(!is_readable(fd));
  watch.cancel();
  // The number is used again.
  const SocketPair next;
  BOOST_TEST((next.fd[0] == number || next.fd[1] == number));
  int calls = 0;
  watch = loop.on_readable(next.fd[0], [&] {
    next.read();
    ++calls;
  });
  next.write();
  BOOST_TEST(poll_until(loop, [&] { return calls == 1; }));
  BOOST_TEST(!is_readable(fd));
}

BOOST_AUTO_TEST_CASE(copies_of_one_descriptor_are_watched_apart_in_another_loop) {
  const SocketPair pair;
  par::Reactor loop;
  const int fd = loop.fd();
  const int copy = ::dup(pair.fd[0]);
  int original_calls = 0;
  int copy_calls = 0;
  std::optional<par::Watch> original = loop.on_readable(pair.fd[0], [&] { ++original_calls; });
  const par::Watch of_copy = loop.on_readable(copy, [&] { ++copy_calls; });
  pair.write();
  loop.poll();
  BOOST_TEST((original_calls == 1 && copy_calls == 1));
  original.reset();
  BOOST_TEST(is_readable(fd));
  loop.poll();
  BOOST_TEST((original_calls == 1 && copy_calls == 2));
  pair.read();
  BOOST_TEST(!is_readable(fd));
  ::close(copy);
}

BOOST_AUTO_TEST_CASE(a_closed_end_is_reported_in_another_loop) {
  int ends[2];
  BOOST_REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  par::Reactor loop;
  bool ended = false;
  par::Watch watch;
  watch = loop.on_readable(ends[0], [&] {
    char byte;
    ended = ::read(ends[0], &byte, 1) == 0;
    watch.cancel();
  });
  BOOST_TEST(!is_readable(loop.fd()));
  ::close(ends[1]);
  BOOST_TEST(poll_until(loop, [&] { return ended; }));
  BOOST_TEST(!is_readable(loop.fd()));
  ::close(ends[0]);
}

// Random changes.  Whenever the descriptor is quiet, a turn calls nothing.
BOOST_AUTO_TEST_CASE(a_quiet_descriptor_means_that_there_is_nothing_to_do) {
  std::mt19937 random(testing::seed(11));
  const SocketPair pairs[4];
  par::Reactor loop;
  int calls = 0;
  std::vector<par::Watch> watches;
  std::vector<par::Timer> timers;
  int queued[4] = {};
  int quiet = 0;
  bool asked = false;
  for (int step = 0; step < 20000; ++step) {
    const std::size_t i = random() % 4;
    switch (random() % 9) {
      case 0:
        watches.push_back(loop.on_readable(pairs[i].fd[0], [&, i] {
          ++calls;
          if (queued[i] > 0 && --queued[i] >= 0) pairs[i].read();
        }));
        break;
      case 1:
        watches.push_back(loop.on_writable(pairs[i].fd[0], [&] {
          ++calls;
          watches.clear();
        }));
        break;
      case 2:
        if (!watches.empty())
          watches.erase(watches.begin() + static_cast<std::ptrdiff_t>(random() % watches.size()));
        break;
      case 3:
        pairs[i].write();
        ++queued[i];
        break;
      case 4: loop.post([&] { ++calls; }); break;
      case 5: timers.push_back(loop.after(0ns, [&] { ++calls; })); break;
      case 6: timers.push_back(loop.after(1h, [&] { ++calls; })); break;
      case 7: timers.clear(); break;
      default: loop.post([&] { throw std::runtime_error("thrown"); }); break;
    }
    if (step == 1000) asked = true;
    if (!asked || random() % 3 != 0) continue;
    if (is_readable(loop.fd())) {
      what_leaves([&] { loop.poll(); });
    } else {
      const int before = calls;
      BOOST_TEST(what_leaves([&] { loop.run_for(0ns); }) == "nothing");
      BOOST_TEST(calls == before);
      ++quiet;
    }
    if (watches.size() > 20) watches.clear();
  }
  BOOST_TEST(quiet > 100);
  BOOST_TEST(calls > 1000);
}

// ---- idle ----

BOOST_AUTO_TEST_CASE(an_idle_reactor_lets_another_loop_sleep) {
  par::Reactor loop;
  auto f = par::run(loop, plus_one);
  auto pool = par::pool(loop, plus_one);
  const SocketPair pair;
  const par::Watch watch = loop.on_readable(pair.fd[0], [] {});
  const par::Timer never = loop.after(1h, [] {});
  int answers = 0;
  for (int i = 0; i < 10; ++i) {
    f(i, [&](par::Result<int> r) { answers += r.has_value(); });
    pool.submit(i, [&](par::Result<int> r) { answers += r.has_value(); });
  }
  BOOST_TEST(poll_until(loop, [&] { return answers == 20; }));
  // News of the children may still come; after that the descriptor stays quiet.
  BOOST_TEST(testing::eventually([&] { return turns_until_quiet(loop) == 0; }));
  BOOST_TEST((loop.until_next() > 0ns));
}

BOOST_AUTO_TEST_CASE(idle_children_of_a_pool_end_in_another_loop) {
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 2;
  options.min_workers = 0;
  options.idle_timeout = 20ms;
  auto pool = par::pool(loop, plus_one, options);
  int answers = 0;
  for (int i = 0; i < 4; ++i) pool.submit(i, [&](par::Result<int> r) { answers += r.has_value(); });
  BOOST_TEST(poll_until(loop, [&] { return answers == 4; }));
  BOOST_TEST(poll_until(loop, [&] { return pool.stats().workers.empty(); }));
}

BOOST_AUTO_TEST_CASE(a_lost_snapshot_is_reported_in_another_loop) {
  par::Snapshot snapshot;
  const pid_t pid = snapshot.pid();
  testing::expect_child(pid);
  par::Reactor loop;
  auto f = par::run(loop, plus_one, testing::in(snapshot));
  bool answered = false;
  f(1, [&](par::Result<int> r) { answered = r.has_value(); });
  BOOST_TEST(poll_until(loop, [&] { return answered; }));
  int lost = 0;
  snapshot.on_lost([&](const par::ExitStatus& how) { lost = how.signal(); });
  ::kill(pid, SIGKILL);
  BOOST_TEST(poll_until(loop, [&] { return lost != 0; }));
  BOOST_TEST(lost == SIGKILL);
  testing::forget_child(pid);
}

// ---- exceptions and ends ----

BOOST_AUTO_TEST_CASE(exceptions_leave_poll_one_by_one_and_nothing_is_lost) {
  par::Reactor loop;
  const int fd = loop.fd();
  std::string order;
  const par::Timer first = loop.after(0ns, [&] {
    order += "a";
    throw std::runtime_error("a");
  });
  const par::Timer second = loop.after(0ns, [&] {
    order += "b";
    throw std::runtime_error("b");
  });
  const par::Timer third = loop.after(0ns, [&] { order += "c"; });
  BOOST_TEST(is_readable(fd));
  BOOST_TEST(what_leaves([&] { loop.poll(); }) == "a");
  BOOST_TEST(is_readable(fd));
  BOOST_TEST(what_leaves([&] { loop.poll(); }) == "b");
  BOOST_TEST(is_readable(fd));
  BOOST_TEST(what_leaves([&] { loop.poll(); }) == "nothing");
  BOOST_TEST(order == "abc");
  BOOST_TEST(!is_readable(fd));
  // A signal is out of the kernel's hands when the exception leaves.
  par::Watch signals[] = {loop.on_signal(SIGUSR1, [] { throw std::runtime_error("signal"); }),
                          loop.on_signal(SIGUSR2, [] { throw std::runtime_error("signal"); })};
  ::raise(SIGUSR1);
  ::raise(SIGUSR2);
  for (int i = 0; i < 2; ++i) {
    BOOST_TEST(is_readable(fd));
    BOOST_TEST(what_leaves([&] { loop.poll(); }) == "signal");
  }
  BOOST_TEST(turns_until_quiet(loop) <= 1);
  // The first post throws; the second one waits for the next turn.
  loop.post([] { throw std::runtime_error("post"); });
  loop.post([&] { order += "d"; });
  BOOST_TEST(what_leaves([&] { loop.poll(); }) == "post");
  BOOST_TEST(is_readable(fd));
  BOOST_TEST(poll_until(loop, [&] { return order == "abcd"; }));
}

BOOST_AUTO_TEST_CASE(timers_that_are_cancelled_after_an_exception_are_not_called) {
  par::Reactor loop;
  static_cast<void>(loop.fd());
  bool called = false;
  const par::Timer first = loop.after(0ns, [] { throw std::runtime_error("first"); });
  par::Timer second = loop.after(0ns, [&] { called = true; });
  BOOST_TEST(what_leaves([&] { loop.poll(); }) == "first");
  second.cancel();
  BOOST_TEST(!is_readable(loop.fd()));
  loop.poll();
  BOOST_TEST(!called);
}

BOOST_AUTO_TEST_CASE(stop_leaves_the_rest_to_the_next_poll) {
  par::Reactor loop;
  std::string order;
  static_cast<void>(loop.fd());
  const par::Timer first = loop.after(0ns, [&] {
    order += "a";
    loop.stop();
  });
  const par::Timer second = loop.after(0ns, [&] { order += "b"; });
  loop.poll();
  BOOST_TEST(order == "a");
  BOOST_TEST(is_readable(loop.fd()));
  loop.poll();
  BOOST_TEST(order == "ab");
  BOOST_TEST(!is_readable(loop.fd()));
}

BOOST_AUTO_TEST_CASE(a_callback_may_destroy_all_other_objects_of_another_loop) {
  const SocketPair pair;
  par::Reactor loop;
  static_cast<void>(loop.fd());
  std::optional<par::Watch> watch = loop.on_readable(pair.fd[0], [] {});
  std::optional<par::Timer> timer = loop.after(0ns, [] {});
  auto f = std::make_optional(par::run(loop, plus_one));
  auto pool = std::make_optional(par::pool(loop, plus_one));
  int heard = 0;
  for (int i = 0; i < 5; ++i) {
    (*f)(i, [&](par::Result<int>) { ++heard; });
    pool->submit(i, [&](par::Result<int>) { ++heard; });
  }
  pair.write();
  loop.post([&] {
    watch.reset();
    timer.reset();
    f.reset();
    pool.reset();
  });
  BOOST_TEST(poll_until(loop, [&] { return heard == 10; }));
  BOOST_TEST(testing::eventually([&] { return turns_until_quiet(loop) == 0; }));
}

BOOST_AUTO_TEST_CASE(a_reactor_of_another_loop_ends_in_any_order_and_closes_its_descriptors) {
  const std::size_t before = testing::count_descriptors();
  for (int order = 0; order < 4; ++order) {
    const SocketPair pair;
    std::optional<par::Watch> watch;
    std::optional<par::Timer> timer;
    std::optional<par::Remote<int(int)>> f;
    auto loop = std::make_unique<par::Reactor>();
    const std::size_t without = testing::count_descriptors();
    const int fd = loop->fd();
    BOOST_TEST(loop->fd() == fd);
    BOOST_TEST((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    BOOST_TEST(testing::count_descriptors() == without + 3);
    watch = loop->on_readable(pair.fd[0], [] {});
    timer = loop->after(1h, [] {});
    f = par::run(*loop, plus_one);
    bool answered = false;
    (*f)(1, [&](par::Result<int>) { answered = true; });
    BOOST_TEST(poll_until(*loop, [&] { return answered; }));
    if (order == 0) watch.reset(), timer.reset(), f.reset();
    if (order == 1) timer.reset();
    if (order == 3) {  // in a callback
      bool destroyed = false;
      loop->post([&] {
        loop.reset();
        destroyed = true;
      });
      par::Reactor* const reactor = loop.get();
      reactor->poll();
      BOOST_TEST(destroyed);
    }
    loop.reset();
  }
  BOOST_TEST(testing::count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(a_watch_of_one_reactor_may_be_moved_to_another_with_a_descriptor) {
  const SocketPair pair;
  auto first = std::make_unique<par::Reactor>();
  par::Reactor second;
  static_cast<void>(first->fd());
  static_cast<void>(second.fd());
  par::Watch watch = first->on_readable(pair.fd[0], [] {});
  par::Timer timer = first->after(1h, [] {});
  pair.write();
  BOOST_TEST(is_readable(first->fd()));
  int calls = 0;
  watch = second.on_readable(pair.fd[0], [&] {
    pair.read();
    ++calls;
  });
  timer = second.after(0ns, [&] { ++calls; });
  BOOST_TEST(!is_readable(first->fd()));
  first.reset();
  BOOST_TEST(poll_until(second, [&] { return calls == 2; }));
  BOOST_TEST(!is_readable(second.fd()));
}

// ---- the other loop may be epoll(7) ----

BOOST_AUTO_TEST_CASE(the_descriptor_may_be_watched_by_epoll) {
  par::Reactor loop;
  const int list = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event what{};
  what.events = EPOLLIN;
  BOOST_TEST(::epoll_ctl(list, EPOLL_CTL_ADD, loop.fd(), &what) == 0);
  auto f = par::run(loop, plus_one);
  int answers = 0;
  for (int i = 0; i < 100; ++i) f(i, [&](par::Result<int> r) { answers += r.has_value(); });
  BOOST_TEST(testing::wait_until([&] { return answers == 100; },
                                 [&] {
                                   epoll_event found{};
                                   if (::epoll_wait(list, &found, 1, 1000) > 0) loop.poll();
                                 }));
  ::close(list);
}

BOOST_AUTO_TEST_CASE(one_reactor_may_watch_the_descriptor_of_another) {
  par::Reactor outer;
  par::Reactor inner;
  auto f = par::run(inner, plus_one);
  int answers = 0;
  par::Watch watch = outer.on_readable(inner.fd(), [&] { inner.poll(); });
  for (int i = 0; i < 100; ++i)
    f(i, [&](par::Result<int> r) {
      answers += r.has_value();
      if (answers == 100) watch.cancel();
    });
  outer.run();
  BOOST_TEST(answers == 100);
}

// ---- misuse ----

BOOST_AUTO_TEST_CASE(a_borrowed_base_has_no_descriptor_for_another_loop) {
  event_base* const base = ::event_base_new();
  {
    par::Reactor loop(base);
    BOOST_CHECK_THROW(loop.fd(), std::logic_error);
    BOOST_CHECK_THROW(loop.until_next(), std::logic_error);
    BOOST_CHECK_THROW(loop.poll(), std::logic_error);
    bool fired = false;
    const par::Timer timer = loop.after(0ns, [&] { fired = true; });
    loop.run();
    BOOST_TEST(fired);
  }
  ::event_base_free(base);
}

BOOST_AUTO_TEST_CASE(poll_in_a_callback_is_refused) {
  par::Reactor loop;
  std::string text;
  loop.post([&] { text = what_leaves([&] { loop.poll(); }); });
  loop.poll();
  BOOST_TEST(text.find("Reactor::poll") != text.npos);
  // The other two serve there.
  int fd = -1;
  std::optional<std::chrono::nanoseconds> next;
  loop.post([&] {
    fd = loop.fd();
    const par::Timer timer = loop.after(1h, [] {});
    next = loop.until_next();
  });
  loop.poll();
  BOOST_TEST(fd == loop.fd());
  BOOST_TEST((next && *next <= 1h));
  BOOST_TEST(turns_until_quiet(loop) <= 1);
}

BOOST_AUTO_TEST_CASE(without_room_for_its_descriptors_the_reactor_stays_as_it_was) {
  par::Reactor loop;
  bool fired = false;
  const par::Timer timer = loop.after(0ns, [&] { fired = true; });
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  rlimit low = limit;
  const int free = ::dup(0);
  ::close(free);
  low.rlim_cur = static_cast<rlim_t>(free) + 1;
  ::setrlimit(RLIMIT_NOFILE, &low);
  BOOST_CHECK_THROW(loop.fd(), std::system_error);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  BOOST_TEST(is_readable(loop.fd()));
  loop.poll();
  BOOST_TEST(fired);
}

// The program may add events to the base of a Reactor: they are called, but are not seen by fd().
BOOST_AUTO_TEST_CASE(events_of_the_program_on_an_own_base_are_told_from_those_of_the_library) {
  const SocketPair pair;
  par::Reactor loop;
  int calls = 0;
  event* const own = ::event_new(
      loop.base(), pair.fd[0], EV_READ | EV_PERSIST,
      [](int, short, void* count) { ++*static_cast<int*>(count); }, &calls);
  event* const self = ::event_new(
      loop.base(), -1, EV_PERSIST, [](int, short, void*) {}, ::event_self_cbarg());
  const timeval hour{3600, 0};
  ::event_add(own, nullptr);
  ::event_add(self, &hour);
  static_cast<void>(loop.fd());
  pair.write();
  BOOST_TEST(!is_readable(loop.fd()));
  BOOST_TEST(!loop.until_next().has_value());
  loop.poll();
  BOOST_TEST(calls == 1);
  ::event_free(own);
  ::event_free(self);
}

BOOST_AUTO_TEST_CASE(an_exception_that_leaves_a_turn_of_the_program_leaves_the_next_poll) {
  par::Reactor loop;
  static_cast<void>(loop.fd());
  const par::Timer timer = loop.after(0ns, [] { throw std::runtime_error("timer"); });
  BOOST_TEST(testing::eventually([&] {
    ::event_base_loop(loop.base(), EVLOOP_NONBLOCK);
    return !timer.active();
  }));
  BOOST_TEST(is_readable(loop.fd()));
  BOOST_TEST(what_leaves([&] { loop.poll(); }) == "timer");
  BOOST_TEST(!is_readable(loop.fd()));
}

// ---- other processes ----

BOOST_AUTO_TEST_CASE(a_child_may_run_its_reactor_in_another_loop) {
  par::Reactor loop;
  auto f = par::run(loop, [](int n) {
    par::Reactor& own = par::this_reactor();
    auto g = par::run(own, plus_one);
    int sum = 0;
    int answers = 0;
    bool timed = false;
    const par::Timer timer = own.after(1ms, [&] { timed = true; });
    for (int i = 0; i < n; ++i)
      g(i, [&](par::Result<int> r) {
        sum += r.value();
        ++answers;
      });
    while (answers < n || !timed) {
      pollfd one{own.fd(), POLLIN, 0};
      if (::poll(&one, 1, -1) > 0) own.poll();
    }
    return sum;
  });
  BOOST_TEST(f.wait(10).value() == 55);
  BOOST_TEST(f.wait(20).value() == 210);
}

BOOST_AUTO_TEST_CASE(a_process_that_the_program_forks_leaves_the_descriptor_alone) {
  const SocketPair pair;
  auto loop = std::make_unique<par::Reactor>();
  const int fd = loop->fd();
  int calls = 0;
  std::optional<par::Watch> watch = loop->on_readable(pair.fd[0], [&] {
    pair.read();
    ++calls;
  });
  std::optional<par::Timer> timer = loop->after(5ms, [&] { ++calls; });
  const int status = testing::elsewhere([&] {
    int refused = 0;
    for (const auto& use : {+[](par::Reactor& r) { r.fd(); }, +[](par::Reactor& r) { r.poll(); },
                            +[](par::Reactor& r) { r.until_next(); }})
      try {
        use(*loop);
      } catch (const std::logic_error&) {
        ++refused;
      }
    watch.reset();
    timer.reset();
    loop.reset();
    par::Reactor own;
    bool fired = false;
    const par::Timer moment = own.after(0ns, [&] { fired = true; });
    if (is_readable(own.fd())) own.poll();
    return refused == 3 && fired ? 0 : 1;
  });
  BOOST_TEST(status == 0);
  pair.write();
  BOOST_TEST(is_readable(fd));
  BOOST_TEST(poll_until(*loop, [&] { return calls == 2; }));
  BOOST_TEST(!is_readable(fd));
}
