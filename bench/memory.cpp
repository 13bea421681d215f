// memory.cpp - the cost of waiting children: their own memory, and thousands of them.
#include <evparallel/evparallel.hpp>

#include "floor.hpp"
#include "measure.hpp"

#include <malloc.h>

#include <cstdint>
#include <fstream>
#include <memory>

namespace par = evparallel;
using bench::now;

namespace {

std::int64_t same(std::int64_t x) {
  return x;
}

// Private dirty memory of a process, in bytes.
double private_dirty(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  std::string word;
  while (file >> word) {
    if (word != "Private_Dirty:") continue;
    double kilobytes = 0;
    file >> kilobytes;
    return kilobytes * 1024;
  }
  throw std::runtime_error("no smaps_rollup");
}

// A waiting process, forked by a process that waits: pages that its parent writes become the child's own.
struct RawChild {
  pid_t parent = 0;
  pid_t pid = 0;
};

RawChild raw_child() {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
  RawChild raw;
  raw.parent = ::fork();
  if (raw.parent == 0) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::pause();
      ::_exit(0);
    }
    if (::write(ends[1], &pid, sizeof pid) != sizeof pid) ::_exit(1);
    ::waitpid(pid, nullptr, 0);
    ::_exit(0);
  }
  const ssize_t got = ::read(ends[0], &raw.pid, sizeof raw.pid);
  ::close(ends[0]);
  ::close(ends[1]);
  if (got != sizeof raw.pid) throw std::runtime_error("no raw child");
  return raw;
}

void idle_child() {
  // The raw one first, with the size of the library's child at the same moment.
  const RawChild raw = raw_child();
  par::Snapshot snapshot;
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto remote = par::run<par::RawIo, par::RawIo>(loop, same, options);
  const par::Hold hold = loop.hold();  // otherwise the loop would return
  while (remote.pid() == 0) loop.run_for(std::chrono::milliseconds(5));
  loop.run_for(std::chrono::milliseconds(100));
  ::usleep(100000);
  const double floor = private_dirty(raw.pid);
  const double idle = private_dirty(remote.pid());
  remote(1, [](par::Result<std::int64_t> r) { r.value(); });
  loop.run_for(std::chrono::milliseconds(100));
  const double called = private_dirty(remote.pid());
  bench::row("private dirty memory of an idle child, kB above raw", "-", bench::kilobytes(idle),
             "raw " + bench::kilobytes(floor), (idle - floor) / 1024, bench::at_most(24));
  bench::row("the same after one RawIo call", "-", bench::kilobytes(called),
             "raw " + bench::kilobytes(floor), (called - floor) / 1024, bench::at_most(36));
  ::kill(raw.pid, SIGKILL);
  ::waitpid(raw.parent, nullptr, 0);
}

void thousands() {
  constexpr std::size_t all = 5000;
  constexpr std::size_t first = 100;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  par::Snapshot snapshot;
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  std::vector<par::Remote<std::int64_t(std::int64_t)>> children;
  children.reserve(all);
  const auto in_use = [] { return static_cast<double>(::mallinfo2().uordblks); };
  std::size_t right = 0;
  double time_of_first = 0;
  const double memory = in_use();
  const double start = now();
  for (std::size_t i = 0; i < all; ++i) {
    children.push_back(par::run<par::RawIo, par::RawIo>(loop, same, options));
    children.back()(static_cast<std::int64_t>(i), [&right, i](par::Result<std::int64_t> r) {
      right += r.value() == static_cast<std::int64_t>(i);
    });
    if (children.size() % 50 == 0) loop.run();
    if (children.size() == first) time_of_first = (now() - start) / first;
  }
  const double time_of_all = (now() - start) / all;
  const double each = (in_use() - memory) / all;
  if (right != all) throw std::runtime_error("answers are missing");
  bench::row("5000 living children, time of each", "-", bench::microseconds(time_of_all),
             "first 100 " + bench::microseconds(time_of_first), time_of_all / time_of_first,
             bench::at_most(1.3));
  bench::row("memory of the parent for each idle child, bytes", "-", bench::kilobytes(each), "-",
             each, bench::at_most(1024));
  children.clear();
}

}  // namespace

int main() {
  bench::apart(idle_child);
  bench::apart(thousands);
}
