// backtrace.cpp - Options::backtrace: the place where a child crashed, and the place where it threw
// an exception.
#include "elsewhere.hpp"
#include "errors.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

namespace par = evparallel;
using Frames = std::vector<par::StackFrame>;
using testing::has;

// A sanitizer would report these errors before the processor raises a signal.
#define UNWATCHED __attribute__((noinline, no_sanitize("address"), no_sanitize("undefined")))

namespace {

#ifdef EVPARALLEL_LIBBACKTRACE
constexpr bool has_names = true;  // of functions that are not exported, with file and line
#else
constexpr bool has_names = false;
#endif

// ---- faults of children ----

// The throwing code remains in one piece with the rest of its function; clang does that by default.
#if defined __GNUC__ && !defined __clang__
#pragma GCC push_options
#pragma GCC optimize("no-reorder-blocks-and-partition")
#endif

volatile int nought = 0;
volatile int sink = 0;

constexpr std::uintptr_t nowhere = 4096 + 16;

UNWATCHED int touch_nothing(int x) {
  *reinterpret_cast<volatile int*>(nowhere + static_cast<std::uintptr_t>(nought)) = x;
  return x + nought;
}

UNWATCHED int go_deeper(int x) {
  if (nought != 0) return x;
  volatile char room[512];
  room[static_cast<std::size_t>(x) % sizeof room] = 1;
  const int below = go_deeper(x + 1);
  return below + room[static_cast<std::size_t>(below) % sizeof room];
}

UNWATCHED int overflow(int x) {
  rlimit limit{};
  ::getrlimit(RLIMIT_STACK, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_cur, 1 << 20);
  ::setrlimit(RLIMIT_STACK, &limit);
  return go_deeper(x) + nought;
}

UNWATCHED int divide(int x) {
  return x / nought;
}

UNWATCHED int call_nothing(int x) {
  int (*volatile nothing)(int) = nullptr;
  return nothing(x) + nought;
}

UNWATCHED int give_up(int x) {
  if (nought == 0) std::abort();
  return x;
}

UNWATCHED int throw_here(int x) {
  if (nought == 0) throw std::runtime_error("thrown here");
  return x;
}

UNWATCHED int cannot_throw(int x) noexcept {
  return throw_here(x) + nought;
}

UNWATCHED int throw_int(int x) {
  if (nought == 0) throw x;
  return x;
}

UNWATCHED int throw_around(int x) {
  try {
    return throw_here(x) + nought;
  } catch (...) {
    std::throw_with_nested(std::logic_error("around it"));
  }
}

#if defined __GNUC__ && !defined __clang__
#pragma GCC pop_options
#endif

// ---- reports ----

par::Options with_backtrace(par::Snapshot& snapshot) {
  par::Options options;
  options.snapshot = &snapshot;
  options.backtrace = true;
  return options;
}

// The error of one call.
template <class F>
par::Error error_of_call(F f, const par::Options& options) {
  par::Reactor loop;
  std::optional<par::Error> error;
  auto remote = par::run(loop, f, options);
  remote(1, [&](par::Result<int> r) { error = r.error(); });
  loop.run();
  return error.value();
}

struct Ending {
  std::optional<par::ExitStatus> status;
  std::optional<par::Error> error;
};

// The end of a process that runs `f` when it gets a message.
template <class F>
Ending ending_of_process(F f, const par::Options& options) {
  par::Reactor loop;
  Ending ending;
  auto p = par::process(
      loop, [f](par::Pipe<int, int> pipe) { pipe.on_message([f](int x) { f(x); }); }, options);
  p.on_error([&](const par::Error& e) { ending.error = e; });
  p.on_exit([&](const par::ExitStatus& s) { ending.status = s; });
  p.send(1);
  loop.run();
  return ending;
}

bool within(const par::StackFrame& frame, int (*function)(int)) {
  const auto start = reinterpret_cast<std::uintptr_t>(function);
  const auto address = reinterpret_cast<std::uintptr_t>(frame.address);
  return address >= start && address - start < 512;
}

// The index of the first frame of `function` itself.
std::size_t place_of(const Frames& frames, int (*function)(int)) {
  const auto found = std::find_if(frames.begin(), frames.end(), [&](const par::StackFrame& frame) {
    return !frame.inlined && within(frame, function);
  });
  return static_cast<std::size_t>(found - frames.begin());
}

void check_named(const par::StackFrame& frame, const char* name) {
  BOOST_TEST(has(frame.module, "backtrace"), frame.module);
  if (!has_names) return;
  BOOST_TEST(has(frame.function, name), frame.describe());
  BOOST_TEST(has(frame.file, "backtrace.cpp"), frame.describe());
  BOOST_TEST(frame.line > 0);
  BOOST_TEST(has(frame.describe(), name));
  BOOST_TEST(has(frame.describe(), "backtrace.cpp:" + std::to_string(frame.line)));
}

// Checks that `function` is the innermost function of the test, and has a name.
void check_innermost(const Frames& frames, int (*function)(int), const char* name) {
  BOOST_REQUIRE(!frames.empty());
  BOOST_TEST(within(frames.front(), function), par::describe(frames));
  check_named(frames.front(), name);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_segmentation_fault_is_reported) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Options options = with_backtrace(snapshot);
  const auto check = [](const par::ExitStatus& status, const Frames& frames) {
    BOOST_TEST(status.signalled());
    BOOST_TEST(status.signal() == SIGSEGV);
    BOOST_REQUIRE(status.crash);
    BOOST_TEST(status.crash->signal == SIGSEGV);
    BOOST_TEST(status.crash->code == SEGV_MAPERR);
    BOOST_TEST(reinterpret_cast<std::uintptr_t>(status.crash->fault_address) == nowhere);
    check_innermost(status.crash->frames, touch_nothing, "touch_nothing");
    const std::string text = status.crash->describe();
    BOOST_TEST(has(text, "SIGSEGV (address not mapped) at 0x1010\n#0 0x"), text);
    BOOST_TEST(has(text, "\n#1 0x"), text);
    BOOST_TEST(frames.size() == status.crash->frames.size());
  };
  const par::Error error = error_of_call(touch_nothing, options);
  BOOST_REQUIRE(error.exit());
  check(*error.exit(), error.backtrace());
  const Ending ending = ending_of_process([](int x) { touch_nothing(x); }, options);
  BOOST_REQUIRE(ending.status);
  check(*ending.status, ending.error.value().backtrace());
}

BOOST_AUTO_TEST_CASE(a_stack_overflow_is_reported) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Error error = error_of_call(overflow, with_backtrace(snapshot));
  BOOST_REQUIRE(error.exit());
  BOOST_TEST(error.exit()->signal() == SIGSEGV);
  BOOST_REQUIRE(error.exit()->crash);
  const Frames& frames = error.backtrace();
  BOOST_TEST(frames.size() > 100U);
  check_innermost(frames, go_deeper, "go_deeper");
  for (const par::StackFrame& frame : frames) BOOST_TEST(within(frame, go_deeper));
}

BOOST_AUTO_TEST_CASE(a_jump_to_an_address_without_code_is_reported) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Error error = error_of_call(call_nothing, with_backtrace(snapshot));
  const Frames& frames = error.backtrace();
  BOOST_REQUIRE(frames.size() > 2U);
  BOOST_TEST(frames[0].address == nullptr);
  BOOST_TEST(frames[0].function == "");
  BOOST_TEST(within(frames[1], call_nothing), par::describe(frames));
  check_named(frames[1], "call_nothing");
}

BOOST_AUTO_TEST_CASE(a_division_by_zero_is_reported) {
#if !defined __x86_64__
  return testing::skip("the quotient is 0 here");
#endif
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Error error = error_of_call(divide, with_backtrace(snapshot));
  BOOST_REQUIRE(error.exit());
  BOOST_REQUIRE(error.exit()->crash);
  BOOST_TEST(error.exit()->signal() == SIGFPE);
  BOOST_TEST(error.exit()->crash->code == FPE_INTDIV);
  check_innermost(error.backtrace(), divide, "divide");
  BOOST_TEST(error.exit()->crash->fault_address == error.backtrace()[0].address);
}

BOOST_AUTO_TEST_CASE(programs_that_abort_are_reported) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const auto check = [&](int (*task)(int), const char* name) {
    const par::Error error = error_of_call(task, with_backtrace(snapshot));
    BOOST_REQUIRE(error.exit());
    BOOST_TEST(error.exit()->signal() == SIGABRT);
    BOOST_REQUIRE(error.exit()->crash);
    BOOST_TEST(error.exit()->crash->fault_address == nullptr);
    BOOST_TEST(has(error.exit()->crash->describe(), "SIGABRT (sent by a process)\n"));
    const Frames& frames = error.backtrace();
    const std::size_t ours = place_of(frames, task);
    BOOST_REQUIRE(ours < frames.size());
    check_named(frames[ours], name);
    const auto is_abort = [](const par::StackFrame& frame) { return frame.function == "abort"; };
    BOOST_TEST(std::any_of(frames.begin(), frames.begin() + static_cast<long>(ours), is_abort),
               par::describe(frames));
  };
  check(give_up, "give_up");
  check(cannot_throw, "cannot_throw");
}

// The thread has a stack of its own.
BOOST_AUTO_TEST_CASE(a_crash_in_a_thread_of_the_task_is_reported) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Error error = error_of_call(
      [](int x) {
        std::thread([x] { touch_nothing(x); }).join();
        return x;
      },
      with_backtrace(snapshot));
  BOOST_REQUIRE(error.exit());
  BOOST_TEST(error.exit()->signal() == SIGSEGV);
  check_innermost(error.backtrace(), touch_nothing, "touch_nothing");
}

// The copy has no report, and must not write into that of the child.
BOOST_AUTO_TEST_CASE(a_process_that_the_task_forks_leaves_no_report) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Error error = error_of_call(
      [](int x) {
        const pid_t copy = ::fork();
        if (copy == 0) give_up(x);
        int status = 0;
        ::waitpid(copy, &status, 0);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) return x;
        ::signal(SIGABRT, SIG_DFL);  // its own handler: no record is written now
        std::abort();
      },
      with_backtrace(snapshot));
  BOOST_REQUIRE(error.exit());
  BOOST_TEST(error.exit()->signal() == SIGABRT);
  BOOST_TEST(!error.exit()->crash);
  BOOST_TEST(error.backtrace().empty());
}

BOOST_AUTO_TEST_CASE(a_handler_of_the_task_has_precedence) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Error error = error_of_call(
      [](int x) {
        ::signal(SIGSEGV, [](int) { ::_exit(5); });
        return touch_nothing(x);
      },
      with_backtrace(snapshot));
  BOOST_REQUIRE(error.exit());
  BOOST_TEST(error.exit()->exited());
  BOOST_TEST(error.exit()->code() == 5);
  BOOST_TEST(!error.exit()->crash);
}

// A signal is blocked while its handler runs; a fault that returns from there must end the process
// as well.
BOOST_AUTO_TEST_CASE(the_wait_status_is_the_same_as_without_the_option) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  for (const int signum : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, SIGTERM}) {
    for (const bool backtrace : {false, true}) {
      par::Options options = with_backtrace(snapshot);
      options.backtrace = backtrace;
      par::Reactor loop;
      std::optional<par::Error> error;
      auto remote = par::run(
          loop, [](int s) { return ::raise(s); }, options);
      remote(signum, [&](par::Result<int> r) { error = r.error(); });
      loop.run();
      BOOST_REQUIRE(error.value().exit());
      BOOST_TEST(error->exit()->signal() == signum);
      BOOST_TEST((error->exit()->cause == par::Cause::crash));
      BOOST_TEST((error->exit()->crash != nullptr) == (backtrace && signum != SIGTERM));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_core_is_still_written) {
  if (testing::skipped_without_cores()) return;
  const testing::Folder folder;
  const int status = testing::elsewhere([&] {
    if (::chdir(folder.path().c_str()) != 0) return 1;
    testing::write_cores();
    par::Snapshot snapshot;
    const par::Error error = error_of_call(touch_nothing, with_backtrace(snapshot));
    return error.exit() && error.exit()->core_dumped() && error.exit()->crash ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

// ---- exceptions ----

BOOST_AUTO_TEST_CASE(an_exception_carries_the_place_where_it_was_thrown) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Options options = with_backtrace(snapshot);
  const par::Error error = error_of_call(throw_here, options);
  BOOST_TEST((error.code() == par::Errc::remote_exception));
  BOOST_TEST(error.what() == "std::runtime_error: thrown here");
  check_innermost(error.backtrace(), throw_here, "throw_here");
  BOOST_TEST(error.describe_backtrace() == par::describe(error.backtrace()));
  check_innermost(error_of_call(throw_int, options).backtrace(), throw_int, "throw_int");
  const Ending ending = ending_of_process([](int x) { throw_here(x); }, options);
  check_innermost(ending.error.value().backtrace(), throw_here, "throw_here");
  BOOST_TEST(ending.status.value().code() == 70);
}

BOOST_AUTO_TEST_CASE(the_items_of_a_map_have_backtraces) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 2;
  options.child = with_backtrace(snapshot);
  auto pool = par::pool(loop, throw_here, options);
  std::vector<par::Error> received;
  pool.map(
      std::vector<int>(50, 1),
      [&](std::size_t, par::Result<int> r) {
        if (!r) received.push_back(r.error());
      },
      [](const par::MapSummary&) {});
  loop.run();
  BOOST_REQUIRE(received.size() == 50U);
  for (const par::Error& error : received)
    check_innermost(error.backtrace(), throw_here, "throw_here");
}

// The same object is the same throw, even if others were thrown in between.
BOOST_AUTO_TEST_CASE(a_kept_exception_keeps_its_backtrace) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Error error = error_of_call(
      [](int x) {
        std::exception_ptr kept;
        try {
          throw_here(x);
        } catch (...) {
          kept = std::current_exception();
        }
        for (int i = 0; i < 100; ++i) {
          try {
            throw_int(i);
          } catch (int) {
            sink = i;
          }
        }
        if (kept) std::rethrow_exception(kept);
        return x;
      },
      with_backtrace(snapshot));
  check_innermost(error.backtrace(), throw_here, "throw_here");
}

BOOST_AUTO_TEST_CASE(more_kept_exceptions_than_the_table_holds_do_no_harm) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const auto task = [](int x) {
    std::vector<std::exception_ptr> kept;
    for (int i = 0; i < 100; ++i) {
      try {
        throw_int(i);
      } catch (...) {
        kept.push_back(std::current_exception());
      }
    }
    if (x == 1) std::rethrow_exception(kept.back());
    kept.clear();
    return throw_here(x);
  };
  const par::Options options = with_backtrace(snapshot);
  BOOST_TEST(error_of_call(task, options).backtrace().empty());
  par::Reactor loop;
  std::optional<par::Error> error;
  auto remote = par::run(loop, task, options);
  remote(2, [&](par::Result<int> r) { error = r.error(); });
  loop.run();
  check_innermost(error.value().backtrace(), throw_here, "throw_here");
}

// Of two nested exceptions the outer one is reported; its type and text come first, too.
BOOST_AUTO_TEST_CASE(a_nested_exception_has_the_backtrace_of_the_outer_one) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  const par::Error error = error_of_call(throw_around, with_backtrace(snapshot));
  BOOST_TEST(error.remote_type() == "std::logic_error");
  const Frames& frames = error.backtrace();
  for (const par::StackFrame& frame : frames)
    BOOST_TEST(!has(frame.function, "throw_here"), par::describe(frames));
  const std::size_t ours = place_of(frames, throw_around);
  BOOST_REQUIRE(ours < frames.size());
  check_named(frames[ours], "throw_around");
}

// It may get the memory of an exception that was thrown.
BOOST_AUTO_TEST_CASE(an_exception_that_was_never_thrown_has_no_backtrace) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  std::optional<par::Error> made;
  std::optional<par::Error> caught;
  auto remote = par::run(
      loop,
      [](int x, par::Reply<int> reply) {
        try {
          throw_here(x);
        } catch (...) {
          if (x == 2) {
            reply.fail(std::current_exception());
            return;
          }
        }
        reply.fail(std::make_exception_ptr(std::runtime_error("made")));
      },
      with_backtrace(snapshot));
  remote(1, [&](par::Result<int> r) { made = r.error(); });
  remote(2, [&](par::Result<int> r) { caught = r.error(); });
  loop.run();
  BOOST_TEST(made.value().what() == "std::runtime_error: made");
  BOOST_TEST(made->backtrace().empty(), par::describe(made->backtrace()));
  check_innermost(caught.value().backtrace(), throw_here, "throw_here");
}

BOOST_AUTO_TEST_CASE(nothing_is_recorded_without_the_option) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Options options;
  options.snapshot = &snapshot;
  const par::Error thrown = error_of_call(throw_here, options);
  BOOST_TEST(thrown.what() == "std::runtime_error: thrown here");
  BOOST_TEST(thrown.backtrace().empty());
  const par::Error crashed = error_of_call(touch_nothing, options);
  BOOST_TEST(crashed.exit().value().signal() == SIGSEGV);
  BOOST_TEST(!crashed.exit()->crash);
  BOOST_TEST(crashed.backtrace().empty());
}

// ---- a child of a child ----

BOOST_AUTO_TEST_CASE(a_child_gets_the_backtrace_of_its_own_child) {
  par::Snapshot snapshot;
  testing::allow_descriptors(1);
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  std::string said;
  auto remote = par::run(
      loop,
      [](int which) {
        par::Options inner;
        inner.backtrace = true;
        std::optional<par::Error> error;
        auto f = par::run(
            par::this_reactor(), [](int w) { return w == 1 ? touch_nothing(w) : throw_here(w); },
            inner);
        f(which, [&](par::Result<int> r) { error = r.error(); });
        par::this_reactor().run();
        const Frames& frames = error.value().backtrace();
        const std::size_t place = place_of(frames, which == 1 ? touch_nothing : throw_here);
        return std::to_string(place) + " " + (frames.empty() ? "" : frames[0].function);
      },
      options);
  for (const int which : {1, 2}) {
    remote(which, [&](par::Result<std::string> r) { said = r.value(); });
    loop.run();
    BOOST_TEST(has(said, "0 "), said);
    if (has_names) BOOST_TEST(has(said, which == 1 ? "touch_nothing" : "throw_here"), said);
  }
}
