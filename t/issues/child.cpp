// child.cpp - a task forked by itself, and the copy came back from the task: it went on as the child that it was
// not, answered the call a second time, and read what was sent to the other.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

namespace {

constexpr int in_copy = -1;

// What a task tells beside the library.
struct Board {
  std::atomic<bool> copy_has_left{false};
};
Board* board = nullptr;

// How the copy ended: its exit status, or 100 and more.
int end_of(pid_t copy) {
  int status = 0;
  ::waitpid(copy, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

int fork_and_return(int x) {
  const pid_t copy = ::fork();
  return copy == 0 ? in_copy : x + end_of(copy);
}

int fork_and_throw(int x) {
  const pid_t copy = ::fork();
  if (copy == 0) throw std::runtime_error("in the copy");
  return x + end_of(copy);
}

void fork_and_reply(int x, par::Reply<int> reply) {
  const pid_t copy = ::fork();
  reply(copy == 0 ? in_copy : x + end_of(copy));
}

// Comes back into the loop of the child, from a callback there.
void fork_in_callback(int x, par::Reply<int> reply) {
  par::this_reactor().after(0ms, [x, reply] { fork_and_reply(x, reply); }).detach();
}

// All calls are there before the first one forks: a copy would find them in the socket, or have
// them read already.
template <class F>
std::vector<int> answers_of(F f, int calls = 20) {
  par::Reactor loop;
  auto remote = par::run<par::RawIo, par::RawIo>(loop, f);
  std::vector<int> answers;
  for (int x = 0; x < calls; ++x)
    remote(1000 * x, [&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  std::sort(answers.begin(), answers.end());  // timers of the same moment have no order
  return answers;
}

std::vector<int> expected(int calls, int status) {
  std::vector<int> all;
  for (int x = 0; x < calls; ++x) all.push_back(1000 * x + status);
  return all;
}

}  // namespace

void testing_main_init() {
  board = &testing::shared<Board>();
  testing::take_default_snapshot();
}

BOOST_AUTO_TEST_CASE(a_copy_that_returns_answers_nothing) {
  BOOST_TEST(answers_of(fork_and_return) == expected(20, 0), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(nor_does_one_that_throws) {
  BOOST_TEST(answers_of(fork_and_throw) == expected(20, 70), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(nor_one_with_a_reply) {
  BOOST_TEST(answers_of(fork_and_reply) == expected(20, 0), boost::test_tools::per_element());
  BOOST_TEST(answers_of(fork_in_callback) == expected(20, 0), boost::test_tools::per_element());
  const auto fork_and_throw_later = [](int x, par::Reply<int> reply) { reply(fork_and_throw(x)); };
  BOOST_TEST(answers_of(fork_and_throw_later) == expected(20, 70),
             boost::test_tools::per_element());
}

// The child has a loop, which runs while it waits for calls.
BOOST_AUTO_TEST_CASE(nor_one_that_was_forked_between_two_calls) {
  static int forked = 0;
  static int ended = 0;
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(loop, [](int x) {
    if (x == 0) {
      par::this_reactor()
          .after(0ms,
                 [] {
                   const pid_t copy = ::fork();
                   if (copy == 0) return;
                   ended = end_of(copy);
                   ++forked;
                 })
          .detach();
    }
    return x == 0 ? 0 : 1000 * forked + ended;
  });
  int last = 0;
  f(0, [](par::Result<int> r) { r.value(); });
  loop.run();
  while (last == 0) {
    f(1, [&](par::Result<int> r) { last = r.value(); });
    loop.run();
  }
  BOOST_TEST(last == 1000);
}

// What was gathered and not yet written is the child's to write.
BOOST_AUTO_TEST_CASE(short_calls_before_it_are_answered_once) {
  const auto task = [](int x) { return x % 100 == 99 ? fork_and_return(x) : x; };
  std::vector<int> all;
  for (int x = 0; x < 500; ++x) all.push_back(x);
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(loop, task);
  std::vector<int> answers;
  for (const int x : all) f(x, [&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  BOOST_TEST(answers == all, boost::test_tools::per_element());
}

// The copy has come back, and the child is still at its call: who cancels it means the child.
BOOST_AUTO_TEST_CASE(the_call_is_not_over_with_its_copy) {
  par::Options options;
  options.grace = 0ms;
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(
      loop,
      [](int x) {
        if (x != 0) return x;
        if (fork_and_return(0) == in_copy) return in_copy;
        board->copy_has_left = true;
        for (;;) ::pause();
      },
      options);
  std::vector<std::string> heard;
  const auto hear = [&](par::Result<int> r) {
    heard.push_back(r ? std::to_string(*r) : par::to_string(r.error().code()));
  };
  par::Call first = f(0, hear);
  f(7, hear);
  while (!board->copy_has_left) loop.run_for(1ms);
  first.cancel();
  loop.run();
  BOOST_TEST(heard == (std::vector<std::string>{"cancelled", "7"}),
             boost::test_tools::per_element());
}

namespace {

// A copy comes back from a callback.
void echo(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int x) {
    const pid_t copy = ::fork();
    if (copy == 0) {
      pipe.send(in_copy);
      return;
    }
    pipe.send(x + end_of(copy));
  });
}

// A copy comes back from the task itself.
void fork_and_echo(par::Pipe<int, int> pipe) {
  pipe.on_message([pipe](int x) { pipe.send(x); });
  pipe.on_end([pipe] { pipe.close(); });
  const pid_t copy = ::fork();
  if (copy == 0) {
    pipe.send(in_copy);
    pipe.close();
    return;
  }
  pipe.send(end_of(copy));
}

std::string events_of(void (*task)(par::Pipe<int, int>)) {
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(loop, task);
  std::string events;
  p.on_message([&](int x) { events += std::to_string(x) + " "; });
  p.on_error([&](const par::Error& e) { events += std::string(e.what()) + " "; });
  p.on_end([&] { events += "end "; });
  p.on_exit([&](const par::ExitStatus& s) { events += par::to_string(s.cause); });
  for (int x = 1; x <= 5; ++x) p.send(1000 * x);
  p.close();
  loop.run();
  return events;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_copy_of_a_process_leaves_its_pipe_alone) {
  BOOST_TEST(events_of(echo) == "1000 2000 3000 4000 5000 end normal");
  BOOST_TEST(events_of(fork_and_echo) == "0 1000 2000 3000 4000 5000 end normal");
}
