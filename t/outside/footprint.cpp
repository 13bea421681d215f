// footprint.cpp - the cost of a child compared with a plain fork of its snapshot: page faults up to its first answer,
// and memory of its own.  Counts, no times.
#include "calling.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace par = evparallel;

namespace {

long page_faults(std::int64_t) {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

[[noreturn]] void be_plain(int from, int to) {
  char byte;
  while (::read(from, &byte, 1) == 1) {
    const long faults = page_faults(0);
    if (::write(to, &faults, sizeof faults) != sizeof faults) break;
  }
  ::_exit(0);
}

// The plainest child of the plainest snapshot: it waits, and reports its cost.  It is not a child of this process,
// which continues to write: the old pages would then count for the child.
class Plain {
public:
  Plain() {
    int down[2];
    int up[2];
    if (::pipe(down) != 0 || ::pipe(up) != 0) std::abort();
    snapshot_ = ::fork();
    if (snapshot_ == 0) {
      ::close(down[1]);
      ::close(up[0]);
      serve(down[0], up[1]);
    }
    ::close(down[0]);
    ::close(up[1]);
    to_ = down[1];
    from_ = up[0];
    if (::read(from_, &pid_, sizeof pid_) != sizeof pid_) std::abort();
  }
  ~Plain() {
    ::close(to_);
    ::close(from_);
    ::waitpid(snapshot_, nullptr, 0);
  }
  Plain(const Plain&) = delete;
  Plain& operator=(const Plain&) = delete;

  pid_t pid() const noexcept { return pid_; }
  long faults() const {
    long faults = -1;
    BOOST_REQUIRE(::write(to_, "?", 1) == 1);
    BOOST_REQUIRE(::read(from_, &faults, sizeof faults) == sizeof faults);
    return faults;
  }

private:
  [[noreturn]] static void serve(int from, int to) {
    const pid_t pid = ::fork();
    if (pid == 0) be_plain(from, to);
    if (::write(to, &pid, sizeof pid) != sizeof pid) ::_exit(1);
    ::waitpid(pid, nullptr, 0);
    ::_exit(0);
  }

  pid_t snapshot_ = 0;
  pid_t pid_ = 0;
  int to_ = -1;
  int from_ = -1;
};

// In kB; -1: the kernel does not report it.
long memory_of(pid_t pid, const std::string& kind) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  std::string word;
  while (file >> word)
    if (word == kind) {
      long kilobytes = -1;
      file >> kilobytes;
      return kilobytes;
    }
  return -1;
}

long own_memory(pid_t pid) {
  return memory_of(pid, "Private_Dirty:");
}

}  // namespace

void testing_main_init() {
  testing::take_default_snapshot();
}

BOOST_AUTO_TEST_CASE(few_page_faults_happen_before_the_first_answer) {
  if (testing::sanitized) return testing::skip("a sanitizer's own pages count, too");
  const Plain plain;
  par::Reactor loop;
  long faults = -1;
  auto ours = par::run<par::RawIo, par::RawIo>(loop, page_faults);
  ours(std::int64_t{0}, [&](par::Result<long> r) { faults = r.value(); });
  loop.run();
  BOOST_TEST(faults > 0);
  BOOST_TEST(faults <= plain.faults() + 30);
}

BOOST_AUTO_TEST_CASE(a_child_has_little_private_memory) {
  if (testing::sanitized) return testing::skip("a sanitizer's own pages count, too");
  if (own_memory(::getpid()) < 0) return testing::skip("no /proc/PID/smaps_rollup here");
  const Plain plain;
  BOOST_TEST(plain.faults() > 0);
  par::Reactor loop;
  auto ours = par::run<par::RawIo, par::RawIo>(loop, page_faults);
  ours(std::int64_t{0}, [&](par::Result<long> r) { r.value(); });
  loop.run();
  BOOST_TEST(testing::loop_until(loop, [&] { return ours.pid() != 0; }));
  const long floor = own_memory(plain.pid());
  BOOST_TEST(floor > 0);
  BOOST_TEST(own_memory(ours.pid()) <= floor + 36);
}

namespace {

// The part of the memory of a process that its forks do not get, in kilobytes; -1: it is unknown.
long not_for_forks(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps");
  long all = -1;
  long size = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "Size:") words >> size;
    if (word != "VmFlags:") continue;
    all = std::max(all, 0L);
    while (words >> word)
      if (word == "dc") all += size;
  }
  return all;
}

}  // namespace

// Each page of it that the snapshot writes to would be copied for each child.
BOOST_AUTO_TEST_CASE(children_do_not_inherit_the_tables_of_the_snapshot) {
  const long in_snapshot = not_for_forks(par::default_snapshot().pid());
  if (in_snapshot < 0) return testing::skip("no /proc/PID/smaps here");
  BOOST_TEST(in_snapshot > 1000);  // of 16384 children
  par::Reactor loop;
  auto ours = par::run<par::RawIo, par::RawIo>(loop, page_faults);
  ours(std::int64_t{0}, [](par::Result<long> r) { r.value(); });
  loop.run();
  BOOST_TEST(testing::loop_until(loop, [&] { return ours.pid() != 0; }));
  BOOST_TEST(testing::process_exists(ours.pid()));
  BOOST_TEST(not_for_forks(ours.pid()) == 0);
}

namespace {

// The memory that a process shares with others and that its cores contain, in kilobytes.
long shared_in_cores(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps");
  long all = 0;
  long size = 0;
  bool is_shared = false;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string first;
    std::string second;
    words >> first >> second;
    if (first.find('-') != std::string::npos) is_shared = second.back() == 's';
    if (first == "Size:") size = std::stol(second);
    if (first == "VmFlags:" && is_shared && line.find(" dd") == std::string::npos) all += size;
  }
  return all;
}

}  // namespace

BOOST_AUTO_TEST_CASE(cores_of_a_child_leave_out_the_tables_that_all_children_share) {
  if (not_for_forks(::getpid()) < 0) return testing::skip("no /proc/PID/smaps here");
  par::Reactor loop;
  auto ours = par::run<par::RawIo, par::RawIo>(loop, page_faults);
  ours(std::int64_t{0}, [](par::Result<long> r) { r.value(); });
  loop.run();
  BOOST_TEST(testing::loop_until(loop, [&] { return ours.pid() != 0; }));
  BOOST_TEST(testing::process_exists(ours.pid()));
  BOOST_TEST(shared_in_cores(ours.pid()) < 100);  // a few pages of the tests themselves
}

// Each fork would copy its page tables.
BOOST_AUTO_TEST_CASE(memory_freed_by_the_program_is_not_in_its_snapshot) {
  if (testing::sanitized) return testing::skip("a sanitizer keeps what was freed");
  if (own_memory(::getpid()) < 0) return testing::skip("no /proc/PID/smaps_rollup here");
  constexpr std::size_t piece = 64 * 1024;  // from the heap, without a mapping of its own
  constexpr long all = 64 * 1024;           // kB
  std::vector<std::unique_ptr<char[]>> pieces;
  for (long kilobytes = 0; kilobytes < all; kilobytes += 64)
    pieces.push_back(std::make_unique<char[]>(piece));
  const std::unique_ptr<char[]> last = std::move(pieces.back());  // malloc keeps memory below
  std::unique_ptr<char[]> kept = std::move(pieces.front());
  kept[piece - 1] = 'k';
  pieces.clear();
  BOOST_TEST(memory_of(::getpid(), "Rss:") > all);
  std::optional<par::Snapshot> snapshot(std::in_place);
  const pid_t pid = snapshot->pid();
  BOOST_TEST(testing::eventually([&] {
    const long resident = memory_of(pid, "Rss:");
    return resident > 0 && resident < all / 2;
  }));
  par::Reactor loop;
  par::Options options;
  options.snapshot = &*snapshot;
  const char* const place = kept.get();
  auto look = par::run(
      loop, [](std::uintptr_t at) { return *reinterpret_cast<const char*>(at + piece - 1); },
      options);
  char seen = 0;
  look(reinterpret_cast<std::uintptr_t>(place), [&](par::Result<char> r) { seen = r.value(); });
  loop.run();
  BOOST_TEST(seen == 'k');
  look = {};
  snapshot.reset();
  BOOST_TEST(testing::eventually([&] { return !testing::process_exists(pid); }));
  auto next = par::run<par::RawIo, par::RawIo>(loop, page_faults);  // closes ended snapshots
  next(std::int64_t{0}, [](par::Result<long> r) { r.value(); });
  loop.run();
}
