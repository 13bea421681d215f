// frozen.cpp - a large index, and the cost of a child that looks something up in it: forked from a
// normal snapshot, and from a frozen one.
//
// Shows: SnapshotOptions::freeze; two snapshots of one program; that a program may continue without
// freezing.
#include <evparallel/evparallel.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace par = evparallel;
using Clock = std::chrono::steady_clock;

// Words, each with a position.  In static storage, where children find it.
static std::map<std::string, std::size_t> index_of_words;

static std::string word(std::size_t number) {
  return "the word that has number " + std::to_string(number);
}

static std::size_t look_up(const std::string& key) {
  const auto found = index_of_words.find(key);
  return found == index_of_words.end() ? 0 : found->second;
}

static double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// One child for each of some look-ups: the median of the times from the fork to the answer.
static double time_of_child(par::Reactor& loop, par::Snapshot& snapshot, std::size_t entries) {
  par::Options options;
  options.snapshot = &snapshot;
  std::vector<double> times;
  for (std::size_t i = 0; i < 50; ++i) {
    const std::size_t number = i * 7919 % entries;
    const Clock::time_point start = Clock::now();
    auto remote = par::run(loop, look_up, options);
    remote(word(number), [number](par::Result<std::size_t> r) {
      if (r.value() == number) return;
      std::fprintf(stderr, "frozen: a child found a different value\n");
      std::exit(1);
    });
    loop.run();
    times.push_back(milliseconds_since(start));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

static std::optional<par::Snapshot> take_frozen() {
  par::SnapshotOptions options;
  options.freeze = true;
  try {
    return par::Snapshot(options);
  } catch (const par::Error& error) {
    // With a sanitizer, or another allocator: children are forked more slowly then.
    std::printf("%s\n", error.what());
    return std::nullopt;
  }
}

int main(int argc, char** argv) {
  std::size_t entries = 2000000;
  const bool sized = argc == 3 && std::strcmp(argv[1], "--entries") == 0;
  if (sized) entries = std::strtoull(argv[2], nullptr, 10);
  if ((argc > 1 && !sized) || entries == 0) {
    std::fprintf(stderr, "usage: frozen [--entries NUMBER]\n");
    return 2;
  }

  for (std::size_t i = 0; i < entries; ++i)
    index_of_words.emplace_hint(index_of_words.end(), word(i), i);
  par::Snapshot plain;
  const Clock::time_point start = Clock::now();
  std::optional<par::Snapshot> frozen = take_frozen();
  if (frozen)
    std::printf("froze %.0f MB in %.0f ms\n", static_cast<double>(frozen->frozen_bytes()) / 1e6,
                milliseconds_since(start));
  index_of_words.clear();  // both snapshots have it; the program no longer needs it

  par::Reactor loop;
  std::printf("a child that looks up one of %zu words:\n", entries);
  std::printf("%8.2f ms, forked from a snapshot as it is\n", time_of_child(loop, plain, entries));
  if (frozen)
    std::printf("%8.2f ms, forked from a frozen one\n", time_of_child(loop, *frozen, entries));
}
