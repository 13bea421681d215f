// pool.cpp - many calls on few children, compared with CPython's ProcessPoolExecutor and plain processes.
#include <evparallel/evparallel.hpp>

#include "floor.hpp"
#include "measure.hpp"

#include <malloc.h>

#include <cstdint>
#include <numeric>

namespace par = evparallel;
using bench::now;

namespace {

constexpr std::size_t items = 200000;
constexpr int turns = 5;

par::PoolOptions two_workers() {
  par::PoolOptions options;
  options.workers = 2;
  options.min_workers = 2;
  return options;
}

template <class T>
T same(const T& value) {
  return value;
}

std::string padded(std::size_t number) {
  std::string text = std::to_string(number);
  return std::string(64 - text.size(), '0') + text;
}

// Items a second, the median; the first turn warms up.
template <class Pool, class Values>
double map_rate(par::Reactor& loop, Pool& pool, const Values& values) {
  std::vector<double> rates;
  for (int turn = 0; turn <= turns; ++turn) {
    std::size_t right = 0;
    const double start = now();
    pool.map(
        values, [&](std::size_t index, auto r) { right += r && *r == values[index]; },
        [](const par::MapSummary&) {});
    loop.run();
    if (right != values.size()) throw std::runtime_error("results are missing");
    if (turn > 0) rates.push_back(static_cast<double>(values.size()) / (now() - start));
  }
  return bench::median(rates);
}

void say(const std::string& question, double ours, double python, double bar) {
  if (python > 0)
    bench::row(question, "2 workers", bench::rate(ours), "CPython " + bench::rate(python),
               ours / python, bench::at_least(bar));
  else
    bench::row(question, "2 workers", bench::rate(ours), "no python3", 0, {});
}

void maps() {
  par::init();
  par::Reactor loop;
  std::vector<int> numbers(items);
  std::iota(numbers.begin(), numbers.end(), 1000000);
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < items; ++i) texts.push_back(padded(i));
  const double python_numbers = bench::peer("map_ints");
  const double python_texts = bench::peer("map_strings");

  auto raw = par::pool<par::RawIo, par::RawIo>(loop, same<int>, two_workers());
  say("map of 200 000 ints, RawIo", map_rate(loop, raw, numbers), python_numbers, 3);
  raw = {};
  auto json = par::pool(loop, same<int>, two_workers());
  say("map of 200 000 ints, JSON", map_rate(loop, json, numbers), python_numbers, 1);
  json = {};
  auto strings = par::pool(loop, same<std::string>, two_workers());
  say("map of 200 000 strings of 64, JSON", map_rate(loop, strings, texts), python_texts, 1);
}

void submits() {
  par::init();
  par::Reactor loop;
  auto pool = par::pool<par::RawIo, par::RawIo>(loop, same<std::int64_t>, two_workers());
  std::vector<double> rates;
  for (int turn = 0; turn <= turns; ++turn) {
    std::size_t right = 0;
    const double start = now();
    for (std::size_t i = 0; i < items; ++i)
      pool.submit(static_cast<std::int64_t>(i), [&right, i](par::Result<std::int64_t> r) {
        right += r && *r == static_cast<std::int64_t>(i);
      });
    loop.run();
    if (right != items) throw std::runtime_error("answers are missing");
    if (turn > 0) rates.push_back(static_cast<double>(items) / (now() - start));
  }
  const double python = bench::peer("submit");
  bench::row("submit, all at once, RawIo, k/s", "2 workers", bench::rate(bench::median(rates)),
             python > 0 ? "CPython " + bench::rate(python) : "no python3",
             bench::median(rates) / 1e3, bench::at_least(150));
}

// ---- real work ----

// Work of one millisecond on any machine: the rounds are counted once, before anything is forked.
long rounds_a_millisecond = 0;

std::uint64_t work(std::uint64_t seed, long rounds) {
  for (long i = 0; i < rounds; ++i) seed = seed * 6364136223846793005U + 1442695040888963407U;
  return seed;
}

void measure_work() {
  constexpr long rounds = 20000000;
  volatile std::uint64_t sink = work(1, rounds);
  const double start = now();
  sink = work(sink, rounds);
  rounds_a_millisecond = static_cast<long>(static_cast<double>(rounds) / ((now() - start) * 1e3));
}

void efficiency() {
  measure_work();
  par::init();
  par::Reactor loop;
  constexpr int count = 2000;
  auto pool = par::pool<par::RawIo, par::RawIo>(
      loop, [](std::uint64_t seed) { return work(seed, rounds_a_millisecond); }, two_workers());
  std::vector<std::uint64_t> seeds(count);
  std::iota(seeds.begin(), seeds.end(), std::uint64_t{1});
  const auto ours = [&] {
    const double start = now();
    pool.map(
        seeds, [](std::size_t, par::Result<std::uint64_t> r) { r.value(); },
        [](const par::MapSummary&) {});
    loop.run();
    return now() - start;
  };
  // Only the two children of the pool: the snapshot is a child as well.
  const auto both = [&] {
    const double start = now();
    std::vector<pid_t> children;
    for (int half = 0; half < 2; ++half) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        volatile std::uint64_t sink = 0;
        for (int i = half; i < count; i += 2)
          sink = work(seeds[static_cast<std::size_t>(i)], rounds_a_millisecond);
        ::_exit(sink == 1);
      }
      children.push_back(pid);
    }
    for (const pid_t pid : children) ::waitpid(pid, nullptr, 0);
    return now() - start;
  };
  const bench::Pair pair = bench::compare(ours, both, turns, 1);
  bench::row("items of 1 ms of work", "2 workers", bench::microseconds(pair.ours / count),
             "two processes " + bench::microseconds(pair.floor / count), 1 / pair.ratio,
             bench::at_least(0.95));
}

// ---- an idle pool ----

void idle() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  par::init();
  par::Reactor loop;
  constexpr unsigned children = 1000;
  const auto in_use = [] { return static_cast<double>(::mallinfo2().uordblks); };
  const auto processor_time = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  };
  par::PoolOptions options;
  options.workers = children;
  options.min_workers = children;
  {  // Memory that the loop keeps for all remotes does not count.
    std::vector<par::Remote<int(int)>> some;
    for (int i = 0; i < 10; ++i) {
      some.push_back(par::run<par::RawIo, par::RawIo>(loop, same<int>));
      some.back()(1, [](par::Result<int> r) { r.value(); });
    }
    loop.run();
  }
  const double memory = in_use();
  auto pool = par::pool<par::RawIo, par::RawIo>(loop, same<int>, options);
  const auto hold = loop.hold();
  const auto ready = [&] {
    const par::PoolStats stats = pool.stats();
    return std::count_if(stats.workers.begin(), stats.workers.end(),
                         [](const auto& worker) { return worker.pid > 0; });
  };
  while (ready() < children) loop.run_for(std::chrono::milliseconds(50));
  loop.run_for(std::chrono::seconds(1));
  const double each = (in_use() - memory) / children;
  const double before = processor_time();
  loop.run_for(std::chrono::seconds(2));
  bench::row("a pool of 1000 that waits: bytes a child", "-", bench::kilobytes(each), "-", each,
             bench::at_most(1024));
  bench::row("the same: processor time of the parent, % of a CPU", "-", "-", "-",
             (processor_time() - before) / 2 * 100, bench::at_most(0.5));
}

}  // namespace

int main() {
  for (const auto& question : {maps, submits, efficiency, idle}) bench::apart(question);
}
