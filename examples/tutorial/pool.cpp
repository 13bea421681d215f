// pool.cpp - step 4: a function for many items, on a few children.
#include <evparallel/evparallel.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

namespace par = evparallel;

// The number of steps from n to 1.
static int collatz(int n) {
  if (n == 4711) std::abort();  // stands for a fault of the function
  int steps = 0;
  for (long x = n; x > 1; ++steps) x = x % 2 == 0 ? x / 2 : 3 * x + 1;
  return steps;
}

int main() {
  par::init();
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 2;
  auto pool = par::pool(loop, collatz, options);

  // Single calls; the one with the higher priority goes first.
  pool.submit(27, [](par::Result<int> r) { std::printf("27 takes %d steps\n", r.value()); });
  par::CallOptions first;
  first.priority = 1;
  pool.submit(first, 97, [](par::Result<int> r) { std::printf("97 takes %d steps\n", r.value()); });
  loop.run();

  // One call for each item.
  std::vector<int> numbers(100000);
  std::iota(numbers.begin(), numbers.end(), 1);
  std::vector<int> steps(numbers.size());
  par::ProgressBar bar({"collatz"});
  par::MapOptions how;
  how.on_progress = [&](const par::Progress& progress) { bar.show(progress); };
  pool.map(
      numbers,
      [&](std::size_t i, par::Result<int> r) {
        if (r)
          steps[i] = *r;
        else
          std::printf("item %d: %s\n", numbers[i], r.error().what());
      },
      [&](const par::MapSummary& summary) {
        bar.finish();
        std::printf("%zu items are done, %zu failed\n", summary.done, summary.failed);
      },
      std::move(how));
  loop.run();
  const auto most = std::max_element(steps.begin(), steps.end());
  std::printf("%d takes the most, %d steps\n",
              numbers[static_cast<std::size_t>(most - steps.begin())], *most);

  const par::PoolStats stats = pool.stats();
  std::printf("%llu children were started, %llu of them in place of one that had died\n",
              static_cast<unsigned long long>(stats.started),
              static_cast<unsigned long long>(stats.respawned));
}
