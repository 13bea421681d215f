// options.cpp - the largest value means no limit, but a pool replaced its children all the time, a map reported at each
// item, the last words were lost, and a nice child was the least nice one; sums overflowed.  Tests every member of
// every struct of options, and every time that is an argument, at 0, 1, -1, the largest value and one less.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>
#include <evparallel/fault.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;
using Strings = std::vector<std::string>;

namespace {

// ---- the tables ----

enum class Value { zero, one, negative, largest, one_less };
constexpr Value small[] = {Value::zero, Value::one};
constexpr Value unlimited[] = {Value::largest, Value::one_less};

template <class T>
constexpr bool is_time = false;
template <class Rep, class Period>
constexpr bool is_time<std::chrono::duration<Rep, Period>> = true;
template <class T>
constexpr bool is_time<std::optional<T>> = is_time<T>;

template <class T>
T number_of(Value value) {
  switch (value) {
    case Value::zero: return T(0);
    case Value::one: return T(1);
    case Value::negative: return static_cast<T>(-1);
    case Value::largest: return std::numeric_limits<T>::max();
    case Value::one_less: return static_cast<T>(std::numeric_limits<T>::max() - 1);
  }
  return T(0);
}
template <class T>
void set(T& to, Value value) {
  if constexpr (is_time<T>)
    to = T(number_of<typename T::rep>(value));
  else
    to = number_of<T>(value);
}
template <class T>
void set(std::optional<T>& to, Value value) {
  set(to.emplace(), value);
}

template <class Struct>
struct Field {
  std::string name;
  std::function<void(Struct&, Value)> set;
  bool is_a_time;
};
template <class Struct, class T>
Field<Struct> field(const char* name, T Struct::*member) {
  return {name, [member](Struct& s, Value value) { set(s.*member, value); }, is_time<T>};
}

template <class Struct>
using Table = std::vector<Field<Struct>>;

Table<par::Options> options() {
  // A new member must be added to the table, if it is a number: the names are counted.
  const par::Options defaults;
  const auto& [snapshot, name, deadline, start_timeout, grace, linger, max_message, max_decoded,
               high_water, retries, idempotent, limits, nice, affinity, env, cwd, in, out, err,
               on_line, last_lines, last_bytes, on_start, process_group, backtrace] = defaults;
  static_cast<void>(snapshot);
  const auto& [cpu, memory, cpu_per_call] = limits;
  static_cast<void>(cpu);
  using O = par::Options;
  return {
      field("Options::deadline", &O::deadline),
      field("Options::start_timeout", &O::start_timeout),
      field("Options::grace", &O::grace),
      field("Options::linger", &O::linger),
      field("Options::max_message", &O::max_message),
      field("Options::max_decoded", &O::max_decoded),
      field("Options::high_water", &O::high_water),
      field("Options::retries", &O::retries),
      {"Options::limits.cpu", [](O& o, Value v) { set(o.limits.cpu, v); }, true},
      {"Options::limits.cpu_per_call", [](O& o, Value v) { set(o.limits.cpu_per_call, v); }, true},
      {"Options::limits.memory", [](O& o, Value v) { set(o.limits.memory, v); }, false},
      field("Options::nice", &O::nice),
      field("Options::last_lines", &O::last_lines),
      field("Options::last_bytes", &O::last_bytes)};
}

Table<par::PoolOptions> pool_options() {
  const par::PoolOptions defaults;
  const auto& [workers, min_workers, idle, child, snapshots, max_failed_starts, max_queue,
               max_queue_bytes, max_calls, max_age, max_rss_growth] = defaults;
  static_cast<void>(workers);
  using O = par::PoolOptions;
  Table<O> table{field("PoolOptions::workers", &O::workers),
                 field("PoolOptions::min_workers", &O::min_workers),
                 field("PoolOptions::idle_timeout", &O::idle_timeout),
                 field("PoolOptions::max_failed_starts", &O::max_failed_starts),
                 field("PoolOptions::max_queue", &O::max_queue),
                 field("PoolOptions::max_queue_bytes", &O::max_queue_bytes),
                 field("PoolOptions::max_calls", &O::max_calls),
                 field("PoolOptions::max_age", &O::max_age),
                 field("PoolOptions::max_rss_growth", &O::max_rss_growth)};
  for (const Field<par::Options>& one : options())
    table.push_back({one.name, [set = one.set](O& o, Value v) { set(o.child, v); }, one.is_a_time});
  return table;
}

Table<par::MapOptions> map_options() {
  const par::MapOptions defaults;
  const auto& [chunk, ordered, stop_on_error, repeatable, priority, total, on_progress,
               progress_every, show] = defaults;
  static_cast<void>(chunk);
  using O = par::MapOptions;
  return {field("MapOptions::chunk", &O::chunk), field("MapOptions::priority", &O::priority),
          field("MapOptions::total", &O::total),
          field("MapOptions::progress_every", &O::progress_every)};
}

Table<par::CallOptions> call_options() {
  const par::CallOptions defaults;
  const auto& [deadline, priority, retries] = defaults;
  static_cast<void>(deadline);
  using O = par::CallOptions;
  return {field("CallOptions::deadline", &O::deadline),
          field("CallOptions::priority", &O::priority), field("CallOptions::retries", &O::retries)};
}

Table<par::SuperviseOptions> supervise_options() {
  const par::SuperviseOptions defaults;
  const auto& [child, restart, first_pause, longest_pause, stable_after, max_restarts,
               restart_window, grace, restarts_at_once, stop_first] = defaults;
  static_cast<void>(child);
  using O = par::SuperviseOptions;
  return {field("SuperviseOptions::first_pause", &O::first_pause),
          field("SuperviseOptions::longest_pause", &O::longest_pause),
          field("SuperviseOptions::stable_after", &O::stable_after),
          field("SuperviseOptions::max_restarts", &O::max_restarts),
          field("SuperviseOptions::restart_window", &O::restart_window),
          field("SuperviseOptions::grace", &O::grace),
          field("SuperviseOptions::restarts_at_once", &O::restarts_at_once)};
}

// ---- uses of the options ----

int plus_one(int x) {
  return x + 1;
}

std::string said(const par::Result<int>& result) {
  return result ? std::to_string(*result) : par::to_string(result.error().code());
}

std::string answer_of(const par::Options& given) {
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(loop, plus_one, given);
  Strings received;
  f(41, [&](par::Result<int> r) { received.push_back(said(r)); });
  loop.run();
  BOOST_TEST(received.size() == 1u);
  return received.empty() ? "" : received.front();
}

std::string echo_of(const par::Options& given) {
  par::Reactor loop;
  auto p = par::process<par::RawIo, par::RawIo>(
      loop, [](par::Pipe<int, int> pipe) { pipe.on_message([pipe](int x) { pipe.send(x + 1); }); },
      given);
  std::string received;
  bool over = false;
  p.on_message([&](int x) { received = std::to_string(x); });
  p.on_error([](const par::Error&) {});
  p.on_exit([&](const par::ExitStatus&) { over = true; });
  const auto error = testing::error_of([&] { p.send(41); });
  BOOST_TEST((!error || error->code() == par::Errc::too_large));
  p.close();
  loop.run();
  BOOST_TEST(over);
  return received;
}

constexpr int some_calls = 6;

struct PoolEnd {
  int values = 0;
  int errors = 0;
  par::PoolStats stats{};
};
PoolEnd pool_of(const par::PoolOptions& given) {
  par::Reactor loop;
  auto pool = par::pool<par::RawIo, par::RawIo>(loop, plus_one, given);
  PoolEnd end;
  for (int i = 0; i < some_calls; ++i)
    pool.submit(i, [&](par::Result<int> r) { ++(r ? end.values : end.errors); });
  loop.run();
  BOOST_TEST(end.values + end.errors == some_calls);
  end.stats = pool.stats();
  return end;
}

struct MapEnd {
  int values = 0;
  int reports = 0;
};
MapEnd map_of(par::MapOptions given) {
  par::Reactor loop;
  auto pool = par::pool<par::RawIo, par::RawIo>(loop, plus_one);
  MapEnd end;
  given.on_progress = [&](const par::Progress&) { ++end.reports; };
  bool over = false;
  pool.map(
      std::vector<int>(50, 7), [&](std::size_t, par::Result<int> r) { end.values += r && *r == 8; },
      [&](const par::MapSummary&) { over = true; }, std::move(given));
  loop.run();
  BOOST_TEST(over);
  return end;
}

// The text of the std::logic_error that f throws; a use that is accepted may fail for another reason.
template <class F>
std::string misuse_of(F f) {
  try {
    return testing::misuse_of(f);
  } catch (const std::exception&) {
    return {};
  }
}

template <class Struct, class F>
void refuses_negative_times(const Table<Struct>& table, F use) {
  for (const Field<Struct>& one : table) {
    if (!one.is_a_time) continue;
    Struct given;
    one.set(given, Value::negative);
    const std::string text = misuse_of([&] { use(std::move(given)); });
    BOOST_TEST(text == "evparallel: " + one.name + " is negative");
  }
}

// Memory that is shared by all processes of a case.
struct Board {
  std::atomic<int> deaths{0};
  std::atomic<bool> begun{false};
};
Board* board = nullptr;

}  // namespace

void testing_main_init() {
  board = &testing::shared<Board>();
  testing::take_default_snapshot();
}

// ---- options of one child ----

BOOST_AUTO_TEST_CASE(a_negative_time_of_a_child_is_refused_by_name) {
  refuses_negative_times(options(), answer_of);
  refuses_negative_times(options(), echo_of);
}

BOOST_AUTO_TEST_CASE(the_largest_value_of_each_option_means_no_limit) {
  testing::limit(300);
  for (const Field<par::Options>& one : options())
    for (const Value value : unlimited) {
      par::Options given;
      one.set(given, value);
      BOOST_TEST(answer_of(given) == "42", one.name);
      BOOST_TEST(echo_of(given) == "42", one.name);
    }
}

// These values may fail the call, but it completes once.
namespace {

// A sanitizer needs memory of its own to run.
bool ends_sanitizers(const std::string& name, Value value) {
  return testing::sanitized && name == "Options::limits.memory" && value != Value::zero;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_smallest_value_of_each_option_works) {
  testing::limit(300);
  for (const Field<par::Options>& one : options())
    for (const Value value : small) {
      if (ends_sanitizers(one.name, value)) continue;
      par::Options given;
      one.set(given, value);
      const std::string answer = answer_of(given);
      if (value == Value::zero && one.name != "Options::max_message")
        BOOST_TEST(answer == "42", one.name);
      echo_of(given);
    }
}

namespace {

// The limits of this process, and its niceness.
std::vector<long long> own_limits(int) {
  std::vector<long long> all;
  for (const auto what : {RLIMIT_CPU, RLIMIT_AS}) {
    rlimit now{};
    ::getrlimit(what, &now);
    all.push_back(static_cast<long long>(now.rlim_cur));
  }
  all.push_back(::getpriority(PRIO_PROCESS, 0));
  return all;
}

std::vector<long long> limits_of_child(const par::Options& given) {
  par::Reactor loop;
  auto f = par::run(loop, own_limits, given);
  std::vector<long long> received;
  f(0, [&](par::Result<std::vector<long long>> r) { received = r.value(); });
  loop.run();
  return received;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_largest_limits_leave_the_limits_of_the_program) {
  for (const Value value : unlimited) {
    par::Options given;
    set(given.limits.cpu, value);
    set(given.limits.memory, value);
    BOOST_TEST(limits_of_child(given) == own_limits(0), boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(the_largest_nice_value_gives_the_lowest_priority) {
  // In a program with a niceness of its own: the sum overflows an int.
  const auto nicest = [](Value value) {
    ::setpriority(PRIO_PROCESS, 0, 5);
    par::Snapshot snapshot;
    par::Options given;
    given.snapshot = &snapshot;
    set(given.nice, value);
    return static_cast<int>(limits_of_child(given).at(2));
  };
  for (const Value value : unlimited)
    BOOST_TEST(testing::elsewhere([&] { return nicest(value); }) == 19);
  const int own = ::getpriority(PRIO_PROCESS, 0);
  for (const int nice : {-1, INT_MIN + 1, INT_MIN}) {
    par::Options given;
    given.nice = nice;
    // Without the right to do that, the child gets the niceness of the program, or an error.
    try {
      BOOST_TEST(limits_of_child(given).at(2) <= own);
    } catch (const par::Error& error) {
      BOOST_TEST(error.os_error() != 0);
    }
  }
}

BOOST_AUTO_TEST_CASE(the_last_words_are_kept_without_a_limit) {
  const std::string line(99, 'w');
  for (const Value value : unlimited) {
    par::Options given;
    given.err = par::Stdio::capture();
    set(given.last_lines, value);
    set(given.last_bytes, value);
    par::Reactor loop;
    auto f = par::run(
        loop,
        [](int lines) {
          const std::string text = std::string(99, 'w') + '\n';
          for (int i = 0; i < lines; ++i) std::fputs(text.c_str(), stderr);
          ::_exit(1);
          return 0;
        },
        given);
    std::string words;
    f(100, [&](par::Result<int> r) { words = r.error().last_words(); });
    loop.run();
    BOOST_TEST(words.size() == 100 * 100 - 1u);
    BOOST_TEST(words.substr(0, 99) == line);
  }
}

BOOST_AUTO_TEST_CASE(a_call_with_unlimited_retries_is_repeated_until_it_succeeds) {
  for (const Value value : unlimited) {
    par::Options given;
    given.idempotent = true;
    set(given.retries, value);
    board->deaths = 0;
    par::Reactor loop;
    auto f = par::run(
        loop,
        [](int x) {
          if (++board->deaths <= 3) ::_exit(1);
          return x;
        },
        given);
    std::string received;
    f(5, [&](par::Result<int> r) { received = said(r); });
    loop.run();
    BOOST_TEST(received == "5");
  }
}

// ---- options of pools and maps ----

BOOST_AUTO_TEST_CASE(a_negative_time_of_a_pool_is_refused_by_name) {
  refuses_negative_times(pool_options(), pool_of);
  refuses_negative_times(map_options(), [](par::MapOptions given) { map_of(std::move(given)); });
}

BOOST_AUTO_TEST_CASE(the_largest_value_of_each_pool_option_means_no_limit) {
  testing::limit(300);
  for (const Field<par::PoolOptions>& one : pool_options())
    for (const Value value : unlimited) {
      par::PoolOptions given;
      given.workers = 2;
      one.set(given, value);
      const PoolEnd end = pool_of(given);
      BOOST_TEST(end.values == some_calls, one.name);
      BOOST_TEST(end.stats.recycled == 0u, one.name);
    }
}

BOOST_AUTO_TEST_CASE(the_smallest_value_of_each_pool_option_works) {
  testing::limit(300);
  for (const Field<par::PoolOptions>& one : pool_options())
    for (const Value value : small) {
      if (ends_sanitizers(one.name, value)) continue;
      par::PoolOptions given;
      given.workers = 2;
      one.set(given, value);
      pool_of(given);
    }
}

// Each call leaks a megabyte; the pool looks at the memory at intervals.
BOOST_AUTO_TEST_CASE(a_growing_child_is_not_replaced_without_a_limit) {
  for (const Value value : unlimited) {
    par::PoolOptions given;
    given.workers = 1;
    set(given.max_rss_growth, value);
    par::Reactor loop;
    auto pool = par::pool(
        loop,
        [](int x) {
          static std::vector<std::string> kept;
          kept.emplace_back(std::size_t{1} << 20, 'x');
          ::usleep(30000);
          return x;
        },
        given);
    int values = 0;
    for (int i = 0; i < 6; ++i)
      pool.submit(i, [&](par::Result<int> r) { values += r.has_value(); });
    loop.run();
    BOOST_TEST(values == 6);
    BOOST_TEST(pool.stats().recycled == 0u);
  }
}

BOOST_AUTO_TEST_CASE(a_map_accepts_extreme_options) {
  testing::limit(300);
  for (const Field<par::MapOptions>& one : map_options())
    for (const Value value : {Value::zero, Value::one, Value::largest, Value::one_less}) {
      par::MapOptions given;
      one.set(given, value);
      BOOST_TEST(map_of(std::move(given)).values == 50, one.name);
    }
  for (const Value value : unlimited) {
    par::MapOptions given;
    given.chunk = 1;
    set(given.progress_every, value);
    BOOST_TEST(map_of(std::move(given)).reports == 1);  // at the end
  }
}

// ---- options of snapshots, bars and faults ----

BOOST_AUTO_TEST_CASE(a_snapshot_accepts_extreme_options) {
  const par::SnapshotOptions defaults;
  const auto& [name, replicas, standby, spares, freeze, preflight, seed, oom_score_adj] = defaults;
  static_cast<void>(name);
  for (const Value value : {Value::zero, Value::largest, Value::one_less}) {
    par::SnapshotOptions given;
    set(given.replicas, value);
    BOOST_TEST(testing::has(misuse_of([&] { par::Snapshot snapshot(given); }), "replica"));
  }
  for (const Value value : unlimited) {
    par::SnapshotOptions given;
    set(given.spares, value);
    BOOST_TEST(
        testing::has(misuse_of([&] { par::Snapshot snapshot(given); }), "SnapshotOptions::spares"));
  }
  testing::allow_descriptors(1);
  std::vector<pid_t> taken;
  for (const int score : {0, 1, -1, INT_MAX, INT_MAX - 1, INT_MIN}) {
    par::SnapshotOptions given;
    given.oom_score_adj = score;
    set(given.seed, score == 0 ? Value::zero : Value::largest);
    par::Snapshot snapshot(given);
    par::Options in;
    in.snapshot = &snapshot;
    BOOST_TEST(answer_of(in) == "42");
    taken.push_back(snapshot.pid());
  }
  for (const pid_t pid : taken) BOOST_TEST(testing::gone(pid));
  const par::Snapshot next;  // closes the sockets of ended snapshots
}

BOOST_AUTO_TEST_CASE(a_progress_bar_accepts_extreme_options) {
  const par::ProgressOptions defaults;
  const auto& [label, form, stream, bytes, every, width] = defaults;
  static_cast<void>(label);
  par::ProgressOptions given;
  given.every = -1ms;
  BOOST_TEST(misuse_of([&] { par::ProgressBar bar(given); }) ==
             "evparallel: ProgressOptions::every is negative");

  const auto drawn = [](const par::ProgressOptions& options) {
    par::ProgressOptions wanted = options;
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), &std::fclose);
    BOOST_REQUIRE(file);
    wanted.stream = file.get();
    wanted.form = par::ProgressForm::bar;
    par::ProgressBar bar(wanted);
    const auto now = par::ProgressMeter::Clock::now();
    for (int hours = 0; hours < 10; ++hours) bar.show({}, now + std::chrono::hours(hours));
    bar.finish();
    std::fflush(file.get());
    std::rewind(file.get());
    std::size_t times = 0;
    std::size_t size = 0;
    for (int c = std::fgetc(file.get()); c != EOF; c = std::fgetc(file.get()), ++size)
      times += c == '\r';
    BOOST_TEST(size < 1000000u);
    return times;
  };
  for (const Value value : {Value::zero, Value::one, Value::largest, Value::one_less}) {
    par::ProgressOptions one;
    set(one.every, value);
    BOOST_TEST(drawn(one) == (value == Value::zero || value == Value::one ? 11u : 2u));
    par::ProgressOptions other;
    set(other.width, value);
    BOOST_TEST(drawn(other) == 11u);
  }
}

BOOST_AUTO_TEST_CASE(a_fault_accepts_extreme_numbers) {
  using par::fault::Plan;
  const Plan defaults;
  const auto& [victim, child, die_at_message, cut_message, cut_to, delay_message, delay,
               fork_failures, fork_errno, die_at_fork] = defaults;
  static_cast<void>(victim);
  Plan plan;
  plan.delay = -1ms;
  BOOST_TEST(testing::has(misuse_of([&] { par::fault::arm(plan); }), "fault::Plan::delay"));
  for (const Value value : unlimited) {
    Plan never;
    never.victim = par::fault::Victim::parent;
    set(never.die_at_message, value);
    set(never.cut_message, value);
    set(never.cut_to, value);
    set(never.delay_message, value);
    set(never.delay, value);
    set(never.die_at_fork, value);
    const par::fault::Armed armed(never);
    BOOST_TEST(answer_of({}) == "42");
  }
}

// ---- time arguments ----

BOOST_AUTO_TEST_CASE(a_negative_time_argument_is_refused_by_name) {
  par::Reactor loop;
  const auto refused = [](const std::string& name, auto f) {
    BOOST_TEST(testing::has(misuse_of(f), name), name);
  };
  refused("Reactor::after", [&] { static_cast<void>(loop.after(-1ns, [] {})); });
  refused("Reactor::every", [&] { static_cast<void>(loop.every(-1ns, [] {})); });
  refused("Reactor::every", [&] { static_cast<void>(loop.every(0ns, [] {})); });
  refused("Reactor::run_for", [&] { loop.run_for(-1ns); });
  auto f = par::run(loop, plus_one);
  int values = 0;
  par::Call call = f(1, [&](par::Result<int> r) { values += r.has_value(); });
  refused("Call::set_deadline", [&] { call.set_deadline(-1ns); });
  auto pool = par::pool(loop, plus_one);
  par::Call pooled = pool.submit(1, [&](par::Result<int> r) { values += r.has_value(); });
  refused("Call::set_deadline", [&] { pooled.set_deadline(-1ns); });
  refused("Pool::shutdown", [&] { pool.shutdown(-1ms); });
  auto p = par::process(loop, [](par::Pipe<int, int>) {});
  refused("Process::terminate", [&] { p.terminate(-1ms); });
  p.close();
  loop.run();
  BOOST_TEST(values == 2);  // the rejected time had no effect
}

BOOST_AUTO_TEST_CASE(timers_accept_extreme_times) {
  par::Reactor loop;
  int fired = 0;
  for (const Value value : unlimited) {
    std::chrono::nanoseconds time;
    set(time, value);
    const par::Timer once = loop.after(time, [&] { fired += 100; });
    const par::Timer often = loop.every(time, [&] { fired += 100; });
    for (const auto soon : {0ns, 1ns}) {
      const par::Timer timer = loop.after(soon, [&] { ++fired; });
      while (timer.active()) loop.run_for(1ms);
    }
    BOOST_TEST(once.active());
    BOOST_TEST(often.active());
    loop.after(1ms, [&] { loop.stop(); }).detach();
    BOOST_TEST(loop.run_for(time));  // stop() ended the loop: there is no other reason
  }
  BOOST_TEST(!loop.run_for(std::chrono::nanoseconds::max()));
  BOOST_TEST(!loop.run_for(0ns));
  BOOST_TEST(fired == 4);
}

BOOST_AUTO_TEST_CASE(calls_accept_extreme_deadlines) {
  const auto answer_with = [](int (*task)(int), std::chrono::nanoseconds time, bool pooled) {
    par::Reactor loop;
    auto f = par::run(loop, task);
    auto pool = par::pool(loop, task);
    std::string received;
    const auto receive = [&](par::Result<int> r) { received = said(r); };
    par::Call call = pooled ? pool.submit(1, receive) : f(1, receive);
    call.set_deadline(1h);
    call.set_deadline(time);
    loop.run();
    return received;
  };
  // The child may be faster than set_deadline().
  const auto returns_when_cancelled = [](int x) {
    while (!par::this_call::cancelled()) {}
    return x + 1;
  };
  for (const bool pooled : {false, true}) {
    for (const Value value : unlimited) {
      std::chrono::nanoseconds time;
      set(time, value);
      BOOST_TEST(answer_with(plus_one, time, pooled) == "2");
    }
    BOOST_TEST(answer_with(returns_when_cancelled, 0ns, pooled) == "deadline");
  }
}

BOOST_AUTO_TEST_CASE(a_call_accepts_extreme_options) {
  testing::limit(300);
  par::Reactor loop;
  auto f = par::run(loop, plus_one);
  auto pool = par::pool(loop, plus_one);
  const Table<par::CallOptions> table = call_options();
  refuses_negative_times(table, [&](const par::CallOptions& given) { return f.wait(given, 1); });
  refuses_negative_times(table, [&](const par::CallOptions& given) { return pool.wait(given, 1); });
  for (const Field<par::CallOptions>& one : table)
    for (const Value value : {Value::zero, Value::largest, Value::one_less}) {
      par::CallOptions given;
      one.set(given, value);
      BOOST_TEST(said(f.wait(given, 1)) == "2", one.name);
      BOOST_TEST(said(pool.wait(given, 1)) == "2", one.name);
    }
}

BOOST_AUTO_TEST_CASE(a_supervisor_accepts_extreme_options) {
  testing::limit(300);
  const auto codes_of = [](par::SuperviseOptions given) {
    given.restart = par::Restart::on_failure;
    given.first_pause = std::min(given.first_pause, 1ms);
    par::Reactor loop;
    std::vector<int> codes;
    board->deaths = 0;
    par::Supervisor all = par::supervise(
        loop, [] { ::_exit(++board->deaths == 1 ? 1 : 0); }, 1, given);
    all.on_exit([&](unsigned, const par::ExitStatus& status) { codes.push_back(status.code()); });
    all.on_failed([](const par::Error&) {});
    loop.run();
    return codes;
  };
  refuses_negative_times(supervise_options(), codes_of);
  for (const Field<par::SuperviseOptions>& one : supervise_options())
    for (const Value value : {Value::zero, Value::largest, Value::one_less}) {
      par::SuperviseOptions given;
      one.set(given, value);
      const bool gives_up =
          std::string(one.name) == "SuperviseOptions::max_restarts" && value == Value::zero;
      const std::vector<int> expected = gives_up ? std::vector<int>{1} : std::vector<int>{1, 0};
      BOOST_TEST(codes_of(given) == expected, one.name);
    }
}

BOOST_AUTO_TEST_CASE(the_time_between_two_signals_may_be_extreme) {
  for (const Value value : {Value::zero, Value::largest, Value::one_less}) {
    std::chrono::milliseconds grace;
    set(grace, value);
    par::Reactor loop;
    auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
      ::signal(SIGTERM, SIG_IGN);
      pipe.on_end([] {});
      pipe.send(1);
    });
    std::optional<par::ExitStatus> end;
    p.on_message([&](int) { p.terminate(grace); });
    p.on_exit([&](const par::ExitStatus& status) { end = status; });
    const par::Timer timer = loop.after(100ms, [&] {
      if (value != Value::zero) p.kill(SIGKILL);
    });
    loop.run();
    BOOST_REQUIRE(end.has_value());
    BOOST_TEST(
        (end->cause == (value == Value::zero ? par::Cause::terminated : par::Cause::killed)));
  }
}

BOOST_AUTO_TEST_CASE(the_shutdown_time_of_a_pool_may_be_extreme) {
  for (const Value value : {Value::zero, Value::largest, Value::one_less}) {
    std::chrono::milliseconds grace;
    set(grace, value);
    par::PoolOptions given;
    given.workers = 1;
    given.child.grace = 0ms;
    par::Reactor loop;
    auto pool = par::pool(
        loop,
        [](int forever) {
          board->begun = true;
          if (forever) ::pause();
          ::usleep(20000);
          return 3;
        },
        given);
    board->begun = false;
    std::string received;
    pool.submit(value == Value::zero, [&](par::Result<int> r) { received = said(r); });
    BOOST_TEST(testing::loop_until(loop, [] { return board->begun.load(); }));
    pool.shutdown(grace);
    loop.run();
    BOOST_TEST(received == (value == Value::zero ? "cancelled" : "3"));
  }
}
