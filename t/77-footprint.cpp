// 77-footprint.cpp - what a child takes beside what any fork of its snapshot takes: page faults up to
// its first answer, and memory of its own.  Counts, no times.
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

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

// The plainest child of the plainest snapshot: it waits, and says what it has cost.  Not a child of this
// process, which goes on writing: what it leaves would be the child's own.
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

// In kB; -1: the kernel does not tell.
long own_memory(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  std::string word;
  while (file >> word)
    if (word == "Private_Dirty:") {
      long kilobytes = -1;
      file >> kilobytes;
      return kilobytes;
    }
  return -1;
}

}  // namespace

void testing_main_init() {
  par::init();
  testing::expect_child(par::default_snapshot().pid());
}

BOOST_AUTO_TEST_CASE(page_faults_up_to_the_first_answer) {
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

BOOST_AUTO_TEST_CASE(memory_of_its_own) {
  if (testing::sanitized) return testing::skip("a sanitizer's own pages count, too");
  if (own_memory(::getpid()) < 0) return testing::skip("no /proc/PID/smaps_rollup here");
  const Plain plain;
  BOOST_TEST(plain.faults() > 0);
  par::Reactor loop;
  auto ours = par::run<par::RawIo, par::RawIo>(loop, page_faults);
  ours(std::int64_t{0}, [&](par::Result<long> r) { r.value(); });
  loop.run();
  const long floor = own_memory(plain.pid());
  BOOST_TEST(floor > 0);
  BOOST_TEST(own_memory(ours.pid()) <= floor + 36);
}
