// leaks.cpp - in an audit build a child that leaks is noticed; any child that does not ends as ever.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <cstdlib>
#include <optional>

namespace par = evparallel;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

// Many, since a stale copy of a pointer in a register or on the stack hides one.
[[gnu::noinline]] void leak() {
  for (int i = 0; i < 100; ++i) {
    char* volatile lost = new char[1000];
    lost = nullptr;
    static_cast<void>(lost);
  }
}

// How a child ends whose task is `f`.
template <class F>
par::ExitStatus end_of(F f) {
  par::Reactor loop;
  auto child = par::process(loop, f);
  std::optional<par::ExitStatus> status;
  child.on_error([](const par::Error&) {});  // one that calls exit() closes nothing
  child.on_exit([&](const par::ExitStatus& how) { status = how; });
  child.close();
  loop.run();
  return status.value();
}

bool skipped() {
  if (!testing::watched_for_leaks()) testing::skip("no LeakSanitizer: --enable-audit");
  return !testing::watched_for_leaks();
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_child_that_leaks_ends_with_an_error) {
  if (skipped()) return;
  testing::allow_reports(1);
  const par::ExitStatus how = end_of([](par::Pipe<int, int>) { leak(); });
  BOOST_TEST(how.exited());
  BOOST_TEST(how.code() != 0);
  BOOST_TEST(par::to_string(how.cause) == "error");
  BOOST_TEST(testing::sanitizer_reports() == 1);
}

BOOST_AUTO_TEST_CASE(one_that_leaks_and_calls_exit_is_noticed_too) {
  if (skipped()) return;
  testing::allow_reports(1);
  const par::ExitStatus how = end_of([](par::Pipe<int, int>) {
    leak();
    std::exit(0);
  });
  BOOST_TEST(how.exited());
  BOOST_TEST(how.code() != 0);
  BOOST_TEST(testing::sanitizer_reports() == 1);
}

// Nobody asks how the child of a remote function has ended.
BOOST_AUTO_TEST_CASE(the_child_of_a_remote_function_is_looked_at) {
  if (skipped()) return;
  testing::allow_reports(1);
  par::Reactor loop;
  auto leaking = par::run(loop, [](int n) {
    leak();
    return n + 1;
  });
  int answer = 0;
  leaking(1, [&](par::Result<int> r) { answer = r.value(); });
  loop.run();
  BOOST_TEST(answer == 2);
  leaking.close();
  BOOST_TEST(testing::eventually([] { return testing::sanitizer_reports() == 1; }));
}

BOOST_AUTO_TEST_CASE(what_is_still_held_is_no_leak) {
  const par::ExitStatus how = end_of([](par::Pipe<int, int>) {
    static char* held = nullptr;
    held = new char[1000];
    held[0] = 1;
  });
  BOOST_TEST(how.exited());
  BOOST_TEST(how.code() == 0);
  const par::ExitStatus after_exit = end_of([](par::Pipe<int, int>) { std::exit(3); });
  BOOST_TEST(after_exit.code() == 3);
  BOOST_TEST(testing::sanitizer_reports() == 0);
}
