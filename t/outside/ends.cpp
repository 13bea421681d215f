// ends.cpp - how a child ended, and what is told of it: to on_exit, and to each call.
#include "elsewhere.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>

namespace par = evparallel;
using std::chrono::milliseconds;

namespace {

struct Told {
  std::optional<par::ExitStatus> by_exit;  // of a process
  std::optional<par::Error> by_call;       // of a call
  std::optional<par::Error> by_queued;     // of a call behind it
};

// The same end in a process and in a call.
template <class End>
Told tell(par::Snapshot& snapshot, End end, par::Options options = {}) {
  options.snapshot = &snapshot;
  par::Reactor loop;
  Told told;
  auto p = par::process(
      loop, [end](par::Pipe<int, int>) { end(); }, options);
  p.on_error([](const par::Error&) {});
  p.on_exit([&](const par::ExitStatus& s) { told.by_exit = s; });
  auto f = par::run(
      loop,
      [end](int x) {
        end();
        return x;
      },
      options);
  // From one callback both leave in one piece: the second has left before the first can end the child.
  loop.post([&] {
    f(1, [&](par::Result<int> r) { told.by_call = r.error(); });
    f(2, [&](par::Result<int> r) { told.by_queued = r.error(); });
  });
  loop.run();
  if (!told.by_exit || !told.by_call || !told.by_queued || !told.by_call->exit())
    throw std::runtime_error("not everything was told");
  return told;
}

void check(const Told& told, par::Cause cause, int signum, par::Errc code, const char* words) {
  for (const par::ExitStatus& status :
       {*told.by_exit, *told.by_call->exit(), *told.by_queued->exit()}) {
    BOOST_TEST(status.pid > 0);
    BOOST_TEST(par::to_string(status.cause) == std::string(par::to_string(cause)));
    BOOST_TEST(status.signalled() == (signum != 0));
    if (signum) BOOST_TEST(status.signal() == signum);
    BOOST_TEST(status.usage.max_rss > 0);
    BOOST_TEST(status.usage.minor_faults > 0);
    const std::string text = status.describe();
    BOOST_TEST(text.find("child " + std::to_string(status.pid)) == 0, text);
    BOOST_TEST(text.find(words) != std::string::npos, text);
  }
  BOOST_TEST((told.by_call->code() == code));
  BOOST_TEST((told.by_call->delivery() == par::Delivery::started));
  BOOST_TEST((told.by_queued->code() == code));
  BOOST_TEST((told.by_queued->delivery() == par::Delivery::sent));
}

void burn() {
  for (volatile unsigned long i = 0;; i = i + 1) {}
}

}  // namespace

BOOST_AUTO_TEST_CASE(exits, *testing::guarantee("4.1")) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  using par::Cause;
  using par::Errc;
  check(tell(snapshot, [] { std::exit(7); }), Cause::error, 0, Errc::child_exited, "status 7");
  check(tell(snapshot, [] { ::_exit(8); }), Cause::error, 0, Errc::child_exited, "status 8");
  check(tell(snapshot, [] { std::exit(0); }), Cause::normal, 0, Errc::child_exited,
        "ended normally");
}

BOOST_AUTO_TEST_CASE(crashes, *testing::guarantee("4.1")) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const auto is_crash = [&](auto end, int signum, const char* words) {
    check(tell(snapshot, end), par::Cause::crash, signum, par::Errc::child_killed, words);
  };
  is_crash([] { ::raise(SIGSEGV); }, SIGSEGV, "SIGSEGV");
  is_crash([] { std::abort(); }, SIGABRT, "SIGABRT");
  is_crash([] { std::terminate(); }, SIGABRT, "SIGABRT");
  is_crash([] { ::raise(SIGTERM); }, SIGTERM, "SIGTERM");
  is_crash([] { ::raise(SIGKILL); }, SIGKILL, "from outside, perhaps out of memory");
}

BOOST_AUTO_TEST_CASE(the_core_flag) {
  if (testing::skipped_without_cores()) return;
  const testing::Folder folder;
  const int status = testing::elsewhere([&] {
    if (::chdir(folder.path().c_str()) != 0) return 1;
    testing::write_cores();
    par::Snapshot snapshot;
    par::Reactor loop;
    par::Options options;
    options.snapshot = &snapshot;
    auto p = par::process(
        loop, [](par::Pipe<int, int>) { ::raise(SIGSEGV); }, options);
    p.on_error([](const par::Error&) {});
    bool dumped = false;
    std::string text;
    p.on_exit([&](const par::ExitStatus& s) {
      dumped = s.core_dumped();
      text = s.describe();
    });
    loop.run();
    return dumped && text.find("(core dumped)") != std::string::npos ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(the_limit_of_processor_time) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Options options;
  options.limits.cpu = std::chrono::seconds(1);
  const Told told = tell(snapshot, burn, options);
  check(told, par::Cause::cpu_limit, SIGXCPU, par::Errc::child_killed, "processor time");
  BOOST_TEST((told.by_exit->usage.user_time.count() > 0));
}

BOOST_AUTO_TEST_CASE(the_limit_of_memory) {
  if (testing::sanitized) return testing::skip("a sanitizer's shadow needs all the address space");
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  options.limits.memory = std::size_t{64} << 20;
  auto f = par::run(
      loop,
      [](std::size_t size) {
        const std::string text(size, 'x');
        return text.size();
      },
      options);
  std::vector<std::string> heard;
  for (const std::size_t megabytes : {std::size_t{16}, std::size_t{256}, std::size_t{16}})
    f(megabytes << 20, [&](par::Result<std::size_t> r) {
      heard.push_back(r ? std::to_string(*r >> 20) : r.error().remote_type());
    });
  loop.run();
  BOOST_TEST(heard == (std::vector<std::string>{"16", "std::bad_alloc", "16"}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_nicer_child) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  options.nice = 3;
  auto f = par::run(
      loop, [] { return ::getpriority(PRIO_PROCESS, 0); }, options);
  int nice = 0;
  f([&](par::Result<int> r) { nice = r.value(); });
  loop.run();
  BOOST_TEST(nice == std::min(::getpriority(PRIO_PROCESS, 0) + 3, 19));
}

BOOST_AUTO_TEST_CASE(a_stopped_child_is_killed_by_its_handle) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto p = par::process(
      loop, [](par::Pipe<int, int>) { ::raise(SIGSTOP); }, options);
  p.on_error([](const par::Error&) {});
  std::optional<par::ExitStatus> status;
  p.on_exit([&](const par::ExitStatus& s) { status = s; });
  p.kill(SIGKILL);
  loop.run();
  BOOST_REQUIRE(status.has_value());
  BOOST_TEST((status->cause == par::Cause::killed));
  BOOST_TEST(status->describe().find("SIGKILL, sent by its handle") != std::string::npos);
}

// ---- exceptions ----

BOOST_AUTO_TEST_CASE(nested_exceptions_are_told_with_their_types) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto f = par::run(
      loop,
      [](int depth) -> int {
        const std::function<void(int)> fail = [&](int left) {
          if (left == 0) throw std::out_of_range("the innermost");
          try {
            fail(left - 1);
          } catch (...) {
            std::throw_with_nested(std::runtime_error("level " + std::to_string(left)));
          }
        };
        if (depth < 0) throw 42;
        fail(depth);
        return 0;
      },
      options);
  std::vector<par::Error> errors;
  for (const int depth : {0, 2, -1})
    f(depth, [&](par::Result<int> r) { errors.push_back(r.error()); });
  loop.run();
  BOOST_REQUIRE(errors.size() == 3u);
  for (const par::Error& error : errors) {
    BOOST_TEST((error.code() == par::Errc::remote_exception));
    BOOST_TEST((error.delivery() == par::Delivery::started));
    BOOST_TEST(!error.exit().has_value());
  }
  BOOST_TEST(errors[0].remote_type() == "std::out_of_range");
  BOOST_TEST(errors[1].remote_type() == "std::runtime_error");
  BOOST_TEST(std::string(errors[1].what()) ==
             "std::runtime_error: level 2; because of std::runtime_error: level 1; because of "
             "std::out_of_range: the innermost");
  BOOST_TEST(errors[2].remote_type() == "int");
}
