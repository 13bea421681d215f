// measure.hpp - measurement: in pairs, pinned, and as ratios of one run.
//
// The cost of a wake-up differs by a factor of 15 between two processes on one CPU and on two, so each figure of two
// processes is taken in both ways, each with affinities that are set before anything is forked.  The lower bound and
// the library take turns, unit by unit; a block has a number of turns, and its figures are their medians; the judged
// figure is the median of the ratios of the blocks, of which the first only warms up.
#pragma once

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The CPUs that this process could use before it was pinned, in order.
inline const std::vector<int>& cpus() {
  static const std::vector<int> all = [] {
    cpu_set_t set;
    std::vector<int> found;
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return found;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &set)) found.push_back(cpu);
    return found;
  }();
  return all;
}

inline void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) throw std::runtime_error("cannot pin");
}

enum class Cpus { one, two };
inline const char* name_of(Cpus where) {
  return where == Cpus::one ? "one CPU" : "two CPUs";
}

// The processes that `fork_far` forks run on the last CPU, this process on the first; or all on the first.
template <class F>
auto place(Cpus where, F fork_far) {
  const std::vector<int>& all = cpus();
  if (all.empty() || (where == Cpus::two && all.size() < 2))
    throw std::runtime_error("too few CPUs");
  pin_to(where == Cpus::one ? all.front() : all.back());
  auto far = fork_far();
  pin_to(all.front());
  return far;
}

inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

inline double percentile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(part * static_cast<double>(values.size() - 1))];
}

struct Pair {
  double ours = 0;  // medians, in seconds per unit
  double floor = 0;
  double ratio = 0;  // of the library to the lower bound, the median of the blocks
  double p99 = 0;    // of the library, not judged
};

// `ours` and `floor` do one unit each and return its seconds.
template <class Ours, class Floor>
Pair compare(Ours ours, Floor floor, int blocks, int units) {
  std::vector<double> all_ours;
  std::vector<double> all_floor;
  std::vector<double> ratios;
  for (int block = 0; block <= blocks; ++block) {
    std::vector<double> block_ours;
    std::vector<double> block_floor;
    for (int unit = 0; unit < units; ++unit) {
      if (unit % 2 == 0) block_floor.push_back(floor());
      block_ours.push_back(ours());
      if (unit % 2 == 1) block_floor.push_back(floor());
    }
    if (block == 0) continue;
    ratios.push_back(median(block_ours) / median(block_floor));
    all_ours.insert(all_ours.end(), block_ours.begin(), block_ours.end());
    all_floor.insert(all_floor.end(), block_floor.begin(), block_floor.end());
  }
  return {median(all_ours), median(all_floor), median(ratios), percentile(all_ours, 0.99)};
}

// ---- output ----

struct Bar {
  enum class Must { be_at_most, be_at_least, none } must = Must::none;
  double value = 0;
};
inline Bar at_most(double value) {
  return {Bar::Must::be_at_most, value};
}
inline Bar at_least(double value) {
  return {Bar::Must::be_at_least, value};
}

inline std::string text_of(const Bar& bar) {
  if (bar.must == Bar::Must::none) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%s %.4g",
                bar.must == Bar::Must::be_at_most ? "<=" : ">=", bar.value);
  return text;
}

inline const char* verdict(const Bar& bar, double value) {
  if (bar.must == Bar::Must::none) return "-";
  return (bar.must == Bar::Must::be_at_most ? value <= bar.value : value >= bar.value) ? "yes"
                                                                                       : "NO";
}

// One row of the table, for the driver: question, where, ours, the reference, figure, bar, verdict.
inline void row(const std::string& question, const std::string& where, const std::string& ours,
                const std::string& reference, double figure, const Bar& bar) {
  std::printf("row\t%s\t%s\t%s\t%s\t%.4g\t%s\t%s\n", question.c_str(), where.c_str(), ours.c_str(),
              reference.c_str(), figure, text_of(bar).c_str(), verdict(bar, figure));
  std::fflush(stdout);
}
// A point of a picture: picture, x, y, series.
inline void point(const std::string& picture, double x, double y, const std::string& whose) {
  std::printf("point\t%s\t%.6g\t%.6g\t%s\n", picture.c_str(), x, y, whose.c_str());
  std::fflush(stdout);
}

inline std::string microseconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g us", seconds * 1e6);
  return text;
}
inline std::string rate(double per_second) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g k/s", per_second / 1e3);
  return text;
}
inline std::string kilobytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g kB", bytes / 1024);
  return text;
}

// The time of CPython for the same (peers.py); 0 without python3.
inline double peer(const std::string& what) {
  const char* source = std::getenv("srcdir");
  const std::string command = std::string("python3 '") + (source ? source : ".") +
                              "/bench/peers.py' " + what + " 2>/dev/null";
  std::FILE* answer = ::popen(command.c_str(), "r");
  double number = 0;
  if (!answer || std::fscanf(answer, "%lf", &number) != 1) number = 0;
  if (answer) ::pclose(answer);
  return number;
}

// Each in a process of its own, so that a snapshot is taken in a new process.
inline void apart(const std::function<void()>& f) {
  std::fflush(stdout);
  const pid_t pid = ::fork();
  if (pid == 0) {
    int status = 0;
    try {
      f();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "bench: %s\n", error.what());
      status = 1;
    }
    std::fflush(stdout);
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (status != 0) std::exit(1);
}

}  // namespace bench
