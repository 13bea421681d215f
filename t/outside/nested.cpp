// nested.cpp - run and process inside a child, through the door.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <unistd.h>

namespace par = evparallel;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

// Calls itself in a child of its own, `depth` times.
int deeper(int depth) {
  if (depth == 0) return 0;
  int below = -1000;
  auto f = par::run(par::this_reactor(), deeper);
  f(depth - 1, [&](par::Result<int> r) { below = r.value(); });
  par::this_reactor().run();
  return below + 1;
}

}  // namespace

BOOST_AUTO_TEST_CASE(twenty_deep) {
  par::Reactor loop;
  auto f = par::run(loop, deeper);
  int depth = 0;
  f(20, [&](par::Result<int> r) { depth = r.value(); });
  loop.run();
  BOOST_TEST(depth == 20);
}

BOOST_AUTO_TEST_CASE(asynchronously) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x, par::Reply<int> reply) {
    auto inner = std::make_shared<par::Remote<int, int>>(
        par::run(par::this_reactor(), [](int y) { return y * 2; }));
    (*inner)(x, [inner, reply](par::Result<int> r) { reply(r.value() + 1); });
  });
  std::vector<int> answers;
  for (int i = 0; i < 10; ++i) f(i, [&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  std::sort(answers.begin(), answers.end());
  BOOST_REQUIRE(answers.size() == 10u);
  for (int i = 0; i < 10; ++i) BOOST_TEST(answers[static_cast<std::size_t>(i)] == i * 2 + 1);
}

BOOST_AUTO_TEST_CASE(a_childs_children_end_with_it, *testing::guarantee("5.4")) {
  par::Reactor loop;
  auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    static auto inner = par::process(par::this_reactor(), [](par::Pipe<int, int>) {
      for (;;) ::pause();
    });
    inner.on_start([pipe](pid_t pid) { pipe.send(static_cast<int>(pid)); });
  });
  pid_t grandchild = 0;
  p.on_message([&](int pid) {
    grandchild = pid;
    p.kill(SIGKILL);
  });
  loop.run();
  BOOST_REQUIRE(grandchild > 0);
  BOOST_TEST(testing::eventually([&] { return !testing::process_exists(grandchild); }));
}

BOOST_AUTO_TEST_CASE(the_default_snapshot_of_a_child_is_the_one_that_forked_it) {
  par::Reactor loop;
  auto f = par::run(loop, [] {
    if (!par::default_snapshot().alive()) return 0;
    par::Options options;
    options.snapshot = &par::default_snapshot();
    auto inner = par::run(
        par::this_reactor(), [] { return par::default_snapshot().pid(); }, options);
    pid_t pid = 0;
    inner([&](par::Result<pid_t> r) { pid = r.value(); });
    par::this_reactor().run();
    return pid;
  });
  pid_t pid = 0;
  f([&](par::Result<pid_t> r) { pid = r.value(); });
  loop.run();
  BOOST_TEST(pid == par::default_snapshot().pid());
}

BOOST_AUTO_TEST_CASE(a_thousand_nested_calls) {
  par::Reactor loop;
  auto f = par::run(loop, [](int n) {
    auto inner = par::run(par::this_reactor(), [](int y) { return y + 1; });
    int sum = 0;
    for (int i = 0; i < n; ++i) inner(i, [&](par::Result<int> r) { sum += r.value() - 1; });
    par::this_reactor().run();
    return sum;
  });
  int sum = 0;
  f(1000, [&](par::Result<int> r) { sum = r.value(); });
  loop.run();
  BOOST_TEST(sum == 999 * 1000 / 2);
}

BOOST_AUTO_TEST_CASE(who_is_not_let_in_hears_it_and_may_repeat) {
  // A process that a task has forked is no child of the snapshot.
  par::Reactor loop;
  auto f = par::run(loop, [] {
    int said[2];
    if (::pipe(said) != 0) return std::string("pipe");
    if (::fork() == 0) {
      std::string heard;
      auto inner = par::run(par::this_reactor(), [] { return 1; });
      for (int i = 0; i < 2; ++i) {
        inner([&](par::Result<int> r) {
          heard += r ? "value;"
                     : std::string(par::to_string(r.error().code())) + ' ' +
                           par::to_string(r.error().delivery()) + ';';
        });
        par::this_reactor().run();
      }
      const ssize_t size = static_cast<ssize_t>(heard.size());
      ::_exit(::write(said[1], heard.data(), heard.size()) == size ? 0 : 1);
    }
    ::close(said[1]);
    char text[200];
    const ssize_t size = ::read(said[0], text, sizeof text);
    ::close(said[0]);
    return std::string(text, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  });
  std::string heard;
  f([&](par::Result<std::string> r) { heard = r.value(); });
  loop.run();
  BOOST_TEST(heard == "overloaded not_sent;overloaded not_sent;");
}
