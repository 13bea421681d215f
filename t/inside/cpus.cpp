// cpus.cpp - how many CPUs there are for this process.
#include "cpus.hpp"
#include "testing.hpp"

#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace par = evparallel;
namespace fs = std::filesystem;

namespace {

// A file system of a case's own.
class Root {
public:
  Root() {
    char name[] = "/tmp/cpus.XXXXXX";
    BOOST_REQUIRE(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Root() { fs::remove_all(path_); }
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;

  void write(const std::string& file, const std::string& text) const {
    fs::create_directories(fs::path(path_ + file).parent_path());
    std::ofstream(path_ + file) << text;
  }
  unsigned cpus() const { return par::cpus_by_quota(path_); }

private:
  std::string path_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(nothing_is_known) {
  const Root root;
  BOOST_TEST(root.cpus() == 0u);
}

BOOST_AUTO_TEST_CASE(version_2) {
  const Root root;
  root.write("/proc/self/cgroup", "0::/a/b\n");
  root.write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  BOOST_TEST(root.cpus() == 0u);
  root.write("/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
  BOOST_TEST(root.cpus() == 3u);
  // What holds for a group holds for those below it.
  root.write("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
  BOOST_TEST(root.cpus() == 2u);
  root.write("/sys/fs/cgroup/a/cpu.max", "1000 100000\n");
  BOOST_TEST(root.cpus() == 1u);
}

BOOST_AUTO_TEST_CASE(version_2_in_a_namespace) {
  const Root root;
  root.write("/proc/self/cgroup", "0::/\n");
  root.write("/sys/fs/cgroup/cpu.max", "400000 100000\n");
  BOOST_TEST(root.cpus() == 4u);
}

BOOST_AUTO_TEST_CASE(version_1) {
  const Root root;
  root.write("/proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/c\n0::/\n");
  root.write("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1\n");
  root.write("/sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
  BOOST_TEST(root.cpus() == 0u);
  root.write("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "150000\n");
  BOOST_TEST(root.cpus() == 2u);
}

BOOST_AUTO_TEST_CASE(what_makes_no_sense_limits_nothing) {
  const Root root;
  root.write("/proc/self/cgroup", "nonsense\n0:\n:::\n0::/a\n");
  root.write("/sys/fs/cgroup/a/cpu.max", "many few\n");
  BOOST_TEST(root.cpus() == 0u);
  root.write("/sys/fs/cgroup/a/cpu.max", "-5 0\n");
  BOOST_TEST(root.cpus() == 0u);
}

BOOST_AUTO_TEST_CASE(affinity) {
  cpu_set_t before;
  BOOST_REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
  BOOST_TEST(par::usable_cpus() >= 1u);
  BOOST_TEST(par::usable_cpus() <= static_cast<unsigned>(CPU_COUNT(&before)));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  BOOST_REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  BOOST_TEST(par::usable_cpus() == 1u);
  BOOST_REQUIRE(::sched_setaffinity(0, sizeof before, &before) == 0);
}
