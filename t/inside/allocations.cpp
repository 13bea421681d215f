// allocations.cpp - the program without memory: each allocation that it makes on the way of a call fails once, alone or
// with the nine that follow.
//
// A scenario uses the library in a process of its own, which has a snapshot of its own.  From arm() on, that process
// counts its allocations, those of libevent among them, and the N-th one fails.  The snapshot was forked before, so
// neither it nor its children count.  Whatever fails, each call either throws and was not accepted, or its callback is
// called once; the loop can be run again after it has thrown; and no process hangs or is terminated.
//
// A case runs every seventh N, and all of them with EVPARALLEL_ALL_CELLS=1 in the environment.
// EVPARALLEL_ALLOCATION=N runs this one, and EVPARALLEL_ALLOCATIONS=10 those that follow it; both show where the
// allocations are.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "process.hpp"

#include <evparallel/evparallel.hpp>

#include <event2/event.h>
#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

// ---- allocations that fail ------------------------------------------------------------------------

namespace {

// Of the process that counts.  Its children are forked by its snapshot, in which nothing is counted.
struct Faults {
  bool armed = false;
  bool shown = false;
  unsigned long first = 0;  // the number of the first allocation that fails
  unsigned long count = 1;  // how many fail, one after the other
  unsigned long seen = 0;
};
Faults faults;

void show_place() noexcept {
  void* frames[40];
  const int count = ::backtrace(frames, 40);
  ::backtrace_symbols_fd(frames, count, STDERR_FILENO);
}

bool fails_now() noexcept {
  if (!faults.armed) return false;
  const unsigned long number = ++faults.seen;
  if (number < faults.first || number >= faults.first + faults.count) return false;
  if (faults.shown) {
    faults.armed = false;
    show_place();
    faults.armed = true;
  }
  return true;
}

void* allocate(std::size_t size, std::size_t alignment = 0) noexcept {
  if (fails_now()) return nullptr;
  if (size == 0) size = 1;
  if (alignment == 0) return std::malloc(size);
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void* allocate_or_throw(std::size_t size, std::size_t alignment = 0) {
  void* const memory = allocate(size, alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}

// As malloc(3) and realloc(3), for libevent.
void* allocate_for_libevent(std::size_t size) {
  void* const memory = allocate(size);
  if (!memory) errno = ENOMEM;
  return memory;
}
void* reallocate_for_libevent(void* memory, std::size_t size) {
  if (!fails_now()) return std::realloc(memory, size);
  errno = ENOMEM;
  return nullptr;
}

std::size_t number_of(std::align_val_t alignment) noexcept {
  return static_cast<std::size_t>(alignment);
}

}  // namespace

void* operator new(std::size_t size) {
  return allocate_or_throw(size);
}
void* operator new[](std::size_t size) {
  return allocate_or_throw(size);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, number_of(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, number_of(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(size, number_of(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(size, number_of(alignment));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace {

// ---- a scenario -----------------------------------------------------------------------------------

// The outcome of one scenario, in memory that the judge sees as well.
struct Outcome {
  std::atomic<bool> over{false};
  std::atomic<unsigned long> allocations{0};
  char complaint[200] = "";
};
Outcome* outcome = nullptr;

// Keeps the first complaint.
[[gnu::format(printf, 1, 2)]] void complain(const char* format, ...) noexcept {
  if (outcome->complaint[0] != '\0') return;
  va_list values;
  va_start(values, format);
  std::vsnprintf(outcome->complaint, sizeof outcome->complaint, format, values);
  va_end(values);
}

// One use of the library whose callback has to be called once, unless the use throws.
struct Use {
  bool refused = false;
  int callbacks = 0;
};

bool is_lack_of_memory(const std::exception& error) noexcept {
  if (dynamic_cast<const std::bad_alloc*>(&error)) return true;
  if (const auto* of_system = dynamic_cast<const std::system_error*>(&error))
    return of_system->code().value() == ENOMEM;
  const auto* of_library = dynamic_cast<const par::Error*>(&error);
  return of_library && of_library->os_error() == ENOMEM;
}

// What a scenario has: a snapshot, a loop, and the uses.
class Stage {
public:
  static constexpr int most_uses = 64;

  par::Options options() {
    par::Options options;
    options.snapshot = &snapshot_;
    options.grace = 10ms;
    options.linger = 10ms;
    return options;
  }
  par::PoolOptions pool_options(unsigned workers) {
    par::PoolOptions options;
    options.workers = workers;
    options.child = this->options();
    return options;
  }
  par::Reactor& loop() { return *loop_; }
  par::Snapshot& snapshot() { return snapshot_; }

  // Allocations are counted from here on.
  void arm() noexcept { faults.armed = true; }

  // Returns whether the library has accepted it.
  template <class F>
  bool tries(F f) {
    try {
      f();
      return true;
    } catch (const std::exception& error) {
      if (!is_lack_of_memory(error)) complain("refused with: %s", error.what());
      return false;
    }
  }
  // `f(callback)` hands the callback to the library.
  template <class F>
  bool use(F f) {
    Use& one = uses_[static_cast<std::size_t>(count_++)];
    one.refused = !tries([&] { f([&one](auto&&...) { ++one.callbacks; }); });
    return !one.refused;
  }

  // Runs the loop until nothing is pending.  It may throw for lack of memory, and then goes on.
  void run() {
    for (int times = 0; times < 200; ++times) try {
        loop_->run();
        return;
      } catch (const std::exception& error) {
        if (!is_lack_of_memory(error)) return complain("run() threw: %s", error.what());
      }
    complain("run() threw 200 times");
  }
  void check() {
    for (int i = 0; i < count_; ++i) {
      const Use& one = uses_[static_cast<std::size_t>(i)];
      if (one.refused && one.callbacks > 0) complain("use %d was refused, and called back", i);
      if (!one.refused && one.callbacks != 1)
        complain("use %d of %d was called back %d times", i, count_, one.callbacks);
    }
  }
  void close() { loop_.reset(); }

private:
  par::Snapshot snapshot_;
  std::optional<par::Reactor> loop_{std::in_place};
  std::array<Use, most_uses> uses_{};
  int count_ = 0;
};

using Scenario = void (*)(Stage&);

// ---- judging --------------------------------------------------------------------------------------

int play(Scenario scenario, unsigned long first, unsigned long count) {
  new (outcome) Outcome;
  return testing::elsewhere([=] {
    // A hang that no timer of the loop can end.
    ::signal(SIGALRM, SIG_DFL);
    ::alarm(static_cast<unsigned>(
        std::chrono::duration_cast<std::chrono::seconds>(testing::patience()).count()));
    Stage stage;
    ::event_set_mem_functions(allocate_for_libevent, reallocate_for_libevent, std::free);
    faults.first = first;
    faults.count = count;
    faults.shown = std::getenv("EVPARALLEL_ALLOCATION") != nullptr;
    scenario(stage);
    stage.run();
    faults.armed = false;
    stage.run();
    stage.check();
    outcome->allocations = faults.seen;
    stage.close();
    outcome->over = true;
    return 0;
  });
}

std::string what_happened(int status) {
  if (status == 100 + SIGALRM) return "it hung";
  if (status == 100 + SIGABRT) return "it was terminated";
  if (status > 100) return "signal " + std::to_string(status - 100) + " ended it";
  if (status != 0) return "it threw";
  if (!outcome->over) return "it ended early";
  return outcome->complaint;
}

// The number of allocations of the scenario if none fails.
unsigned long allocations_of(Scenario scenario) {
  const std::string complaint = what_happened(play(scenario, ULONG_MAX, 0));
  BOOST_TEST(complaint.empty(), "with memory: " << complaint);
  return outcome->allocations;
}

void check(Scenario scenario, unsigned long count, unsigned long from, unsigned long step) {
  const unsigned long last = allocations_of(scenario);
  BOOST_TEST(last >= from, "there are only " << last << " allocations");
  for (unsigned long first = from; first <= last; first += step) {
    testing::limit();
    const std::string complaint = what_happened(play(scenario, first, count));
    BOOST_TEST(complaint.empty(),
               "allocation " << first << " and " << count - 1 << " more: " << complaint);
  }
}

void check(Scenario scenario) {
  if (!outcome) outcome = &testing::shared<Outcome>();
  if (const char* one = std::getenv("EVPARALLEL_ALLOCATION")) {
    const char* const count = std::getenv("EVPARALLEL_ALLOCATIONS");
    const std::string complaint = what_happened(play(scenario, std::strtoul(one, nullptr, 10),
                                                     count ? std::strtoul(count, nullptr, 10) : 1));
    BOOST_TEST(complaint.empty(), complaint);
    return;
  }
  static const bool all = std::getenv("EVPARALLEL_ALL_CELLS") != nullptr;
  constexpr unsigned long step = 7;
  static unsigned long from = 0;
  from = from % step + 1;
  check(scenario, 1, all ? 1 : from, all ? 1 : step);
  check(scenario, 10, all ? 1 : from, all ? 1 : step);
}

// ---- functions of the children --------------------------------------------------------------------

int twice(int x) {
  return 2 * x;
}
std::string echo(const std::string& text) {
  return text;
}
[[noreturn]] int ends(int status) {
  ::_exit(status);
}
[[noreturn]] int hangs(int) {
  for (;;) ::pause();
}
int throws(int x) {
  throw std::runtime_error("the task has failed with " + std::to_string(x));
}
// Sends each message back, and ends with the program's direction.
void mirror(par::Pipe<std::string, std::string> pipe) {
  pipe.on_message([pipe](std::string text) mutable { pipe.send(text); });
}
void says_and_ends(par::Pipe<std::string, std::string>) {
  std::puts("one line");
  std::puts("another line");
  std::fflush(stdout);
  ::_exit(3);
}

}  // namespace

// ---- remote functions -----------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(calls_of_a_new_remote, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    stage.arm();
    par::Remote<int(int)> remote;
    if (!stage.tries([&] { remote = par::run(stage.loop(), twice, stage.options()); })) return;
    for (int i = 0; i < 5; ++i) stage.use([&](auto callback) { remote(i, callback); });
    stage.run();
    for (int i = 0; i < 3; ++i) stage.use([&](auto callback) { remote(i, callback); });
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(calls_with_long_texts, *testing::guarantee("1.2 7.2")) {
  check([](Stage& stage) {
    auto remote = par::run(stage.loop(), echo, stage.options());
    const std::string texts[] = {std::string(20000, 'a'), std::string(100000, 'b'),
                                 std::string(500000, 'c'), "d", std::string(9000, 'e')};
    stage.arm();
    for (const std::string& text : texts)
      for (int i = 0; i < 3; ++i) stage.use([&](auto callback) { remote(text, callback); });
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(calls_whose_task_throws, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    auto remote = par::run(stage.loop(), throws, stage.options());
    stage.arm();
    for (int i = 0; i < 3; ++i) stage.use([&](auto callback) { remote(i, callback); });
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(cancelled_calls, *testing::guarantee("1.2 3.1")) {
  check([](Stage& stage) {
    auto remote = par::run(stage.loop(), hangs, stage.options());
    par::Call calls[4];
    stage.arm();
    for (par::Call& call : calls) stage.use([&](auto callback) { call = remote(1, callback); });
    stage.tries([&] { stage.loop().run_for(1ms); });
    // A call that could not be cancelled is given up again.
    for (par::Call& call : calls)
      while (!stage.tries([&] { call.cancel(); })) continue;
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(calls_past_their_deadline, *testing::guarantee("1.2 3.1")) {
  check([](Stage& stage) {
    par::Options options = stage.options();
    options.deadline = 2ms;
    auto remote = par::run(stage.loop(), hangs, options);
    stage.arm();
    for (int i = 0; i < 4; ++i) stage.use([&](auto callback) { remote(i, callback); });
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(calls_of_a_child_that_ends, *testing::guarantee("1.2 2.3")) {
  check([](Stage& stage) {
    auto remote = par::run(stage.loop(), ends, stage.options());
    stage.arm();
    for (int i = 0; i < 4; ++i) stage.use([&](auto callback) { remote(3, callback); });
    stage.run();
    stage.use([&](auto callback) { remote(0, callback); });
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(calls_that_are_made_again, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    par::Options options = stage.options();
    options.retries = 2;
    options.idempotent = true;
    auto remote = par::run(stage.loop(), ends, options);
    stage.arm();
    for (int i = 0; i < 4; ++i) stage.use([&](auto callback) { remote(3, callback); });
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(calls_of_a_remote_that_is_closed_and_dropped, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    std::optional<par::Remote<int(int)>> remote(par::run(stage.loop(), twice, stage.options()));
    std::optional<par::Remote<int(int)>> hanging(par::run(stage.loop(), hangs, stage.options()));
    stage.arm();
    for (int i = 0; i < 3; ++i) {
      stage.use([&](auto callback) { (*remote)(i, callback); });
      stage.use([&](auto callback) { (*hanging)(i, callback); });
    }
    stage.tries([&] { remote->close(); });
    hanging.reset();
    stage.run();
    remote.reset();
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(calls_of_a_snapshot_that_ends, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    auto remote = par::run(stage.loop(), hangs, stage.options());
    stage.arm();
    for (int i = 0; i < 3; ++i) stage.use([&](auto callback) { remote(i, callback); });
    stage.tries([&] { stage.loop().run_for(1ms); });
    ::kill(stage.snapshot().pid(), SIGKILL);
    stage.run();
    stage.use([&](auto callback) { remote(0, callback); });
    stage.run();
  });
}

// ---- processes ------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_process, *testing::guarantee("1.3")) {
  check([](Stage& stage) {
    const std::string texts[] = {"short", std::string(3000, 'x'), std::string(90000, 'y')};
    stage.arm();
    using Mirror = par::Process<std::string, std::string>;
    std::optional<Mirror> process;
    const bool exits = stage.use([&](auto callback) {
      Mirror made = par::process(stage.loop(), mirror, stage.options());
      made.on_exit(callback);
      process = std::move(made);
    });
    if (!exits) return;
    std::size_t bytes = 0;
    std::size_t sent = 0;
    int errors = 0;
    stage.tries([&] { process->on_error([&](const par::Error&) { ++errors; }); });
    const bool reads = stage.tries(
        [&] { process->on_message([&](const std::string& text) { bytes += text.size(); }); });
    for (const std::string& text : texts)
      if (stage.tries([&] { process->send(text); })) sent += text.size();
    while (!stage.tries([&] { process->close(); })) continue;
    if (!reads) process->kill(SIGKILL);
    stage.run();
    if (reads && errors == 0 && bytes != sent)
      complain("%zu of %zu bytes were received", bytes, sent);
  });
}

BOOST_AUTO_TEST_CASE(a_process_with_captured_output, *testing::guarantee("1.3")) {
  check([](Stage& stage) {
    par::Options options = stage.options();
    int lines = 0;
    options.out = par::Stdio::capture();
    options.on_line = [&](const par::OutputLine&) { ++lines; };
    stage.arm();
    par::Process<std::string, std::string> process;
    stage.use([&](auto callback) {
      auto made = par::process(stage.loop(), says_and_ends, options);
      made.on_exit(callback);
      process = std::move(made);
    });
    stage.run();
  });
}

// ---- pools ----------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(calls_of_a_new_pool, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    stage.arm();
    par::Pool<int(int)> pool;
    if (!stage.tries([&] { pool = par::pool(stage.loop(), twice, stage.pool_options(2)); })) return;
    for (int i = 0; i < 6; ++i) stage.use([&](auto callback) { pool.submit(i, callback); });
    stage.run();
    for (int i = 0; i < 3; ++i) stage.use([&](auto callback) { pool.submit(i, callback); });
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(calls_of_a_pool_whose_children_end, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    auto pool = par::pool(stage.loop(), ends, stage.pool_options(2));
    stage.arm();
    for (int i = 0; i < 4; ++i) stage.use([&](auto callback) { pool.submit(3, callback); });
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(cancelled_calls_of_a_pool, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    auto pool = par::pool(stage.loop(), hangs, stage.pool_options(2));
    par::Call calls[5];
    par::CallOptions late;
    late.deadline = 2ms;
    stage.arm();
    for (par::Call& call : calls)
      stage.use([&](auto callback) { call = pool.submit(1, callback); });
    stage.use([&](auto callback) { pool.submit(late, 1, callback); });
    stage.tries([&] { stage.loop().run_for(1ms); });
    for (par::Call& call : calls)
      while (!stage.tries([&] { call.cancel(); })) continue;
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(calls_of_a_pool_that_is_closed_and_dropped, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    std::optional<par::Pool<int(int)>> pool(par::pool(stage.loop(), twice, stage.pool_options(2)));
    std::optional<par::Pool<int(int)>> other(par::pool(stage.loop(), hangs, stage.pool_options(2)));
    stage.arm();
    for (int i = 0; i < 4; ++i) {
      stage.use([&](auto callback) { pool->submit(i, callback); });
      stage.use([&](auto callback) { other->submit(i, callback); });
    }
    stage.use([&](auto callback) { pool->on_closed(callback); });
    while (!stage.tries([&] { pool->close(); })) continue;
    other.reset();
    stage.run();
  });
}

BOOST_AUTO_TEST_CASE(a_map, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    auto pool = par::pool(stage.loop(), twice, stage.pool_options(2));
    std::vector<int> items(40);
    int results = 0;
    stage.arm();
    const bool accepted = stage.use([&](auto callback) {
      pool.map(
          items, [&](std::size_t, const par::Result<int>&) { ++results; }, callback);
    });
    stage.run();
    if (accepted && results != 40) complain("%d of 40 items have a result", results);
  });
}

BOOST_AUTO_TEST_CASE(a_stream, *testing::guarantee("1.2")) {
  check([](Stage& stage) {
    auto pool = par::pool(stage.loop(), twice, stage.pool_options(2));
    int results = 0;
    int pushed = 0;
    stage.arm();
    par::Stream<int> stream;
    const bool accepted = stage.use([&](auto callback) {
      stream = pool.stream([&](std::size_t, const par::Result<int>&) { ++results; }, callback);
    });
    if (!accepted) return;
    for (int i = 0; i < 10; ++i) pushed += stage.tries([&] { stream.push(i); });
    while (!stage.tries([&] { stream.close(); })) continue;
    stage.run();
    if (results != pushed) complain("%d of %d items have a result", results, pushed);
  });
}
