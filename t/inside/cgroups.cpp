// cgroups.cpp - limits of control groups: the number of CPUs for this process, and how a kill by the kernel's OOM
// killer is distinguished from other kills.
#include "elsewhere.hpp"
#include "private_names.hpp"
#include "process.hpp"
#include "testing.hpp"

#include "system/usable_cpus.hpp"
#include "spawn/oom_counter.hpp"

#include <evparallel/evparallel.hpp>

#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace par = evparallel;
namespace fs = std::filesystem;

namespace {

// A file system for one case.
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

BOOST_AUTO_TEST_CASE(there_is_no_cpu_limit_without_files) {
  const Root root;
  BOOST_TEST(root.cpus() == 0u);
}

BOOST_AUTO_TEST_CASE(cpu_limits_of_cgroup_version_2_apply) {
  const Root root;
  root.write("/proc/self/cgroup", "0::/a/b\n");
  root.write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  BOOST_TEST(root.cpus() == 0u);
  root.write("/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
  BOOST_TEST(root.cpus() == 3u);
  // A limit of a group applies to its descendants.
  root.write("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
  BOOST_TEST(root.cpus() == 2u);
  root.write("/sys/fs/cgroup/a/cpu.max", "1000 100000\n");
  BOOST_TEST(root.cpus() == 1u);
}

BOOST_AUTO_TEST_CASE(cpu_limits_of_cgroup_version_2_apply_in_a_namespace) {
  const Root root;
  root.write("/proc/self/cgroup", "0::/\n");
  root.write("/sys/fs/cgroup/cpu.max", "400000 100000\n");
  BOOST_TEST(root.cpus() == 4u);
}

BOOST_AUTO_TEST_CASE(cpu_limits_of_cgroup_version_1_apply) {
  const Root root;
  root.write("/proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/c\n0::/\n");
  root.write("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1\n");
  root.write("/sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
  BOOST_TEST(root.cpus() == 0u);
  root.write("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "150000\n");
  BOOST_TEST(root.cpus() == 2u);
}

BOOST_AUTO_TEST_CASE(malformed_limits_are_ignored) {
  const Root root;
  root.write("/proc/self/cgroup", "nonsense\n0:\n:::\n0::/a\n");
  root.write("/sys/fs/cgroup/a/cpu.max", "many few\n");
  BOOST_TEST(root.cpus() == 0u);
  root.write("/sys/fs/cgroup/a/cpu.max", "-5 0\n");
  BOOST_TEST(root.cpus() == 0u);
}

BOOST_AUTO_TEST_CASE(the_affinity_limits_the_usable_cpus) {
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

// ---- out of memory ----

BOOST_AUTO_TEST_CASE(the_file_that_counts_kills_is_found) {
  char folder[] = "/tmp/evparallel-cgroup-XXXXXX";
  BOOST_REQUIRE(::mkdtemp(folder) != nullptr);
  const std::string mount = folder;
  const auto make = [](const std::string& path) { return ::mkdir(path.c_str(), 0700) == 0; };
  const auto touch = [](const std::string& path) { std::ofstream(path) << "oom_kill 0\n"; };
  BOOST_REQUIRE(make(mount + "/memory"));
  BOOST_REQUIRE(make(mount + "/memory/mine"));
  BOOST_REQUIRE(make(mount + "/unified"));
  const std::string v1 = "8:pids:/\n4:cpu,memory:/mine\n0::/\n";
  BOOST_TEST(par::oom_counter_path(v1, mount) == "");
  touch(mount + "/unified/memory.events");
  BOOST_TEST(par::oom_counter_path(v1, mount) == mount + "/unified//memory.events");
  touch(mount + "/memory/memory.oom_control");  // the group may have the host's path
  BOOST_TEST(par::oom_counter_path(v1, mount) == mount + "/memory/memory.oom_control");
  touch(mount + "/memory/mine/memory.oom_control");
  BOOST_TEST(par::oom_counter_path(v1, mount) == mount + "/memory/mine/memory.oom_control");
  for (const char* text : {"", "nonsense", "1:2", "4:memoryless:/mine"})
    BOOST_TEST(par::oom_counter_path(text, mount) == "");
  for (const char* path :
       {"/memory/mine/memory.oom_control", "/memory/memory.oom_control", "/unified/memory.events"})
    ::unlink((mount + path).c_str());
  for (const char* path : {"/memory/mine", "/memory", "/unified", ""})
    BOOST_TEST(::rmdir((mount + path).c_str()) == 0);
}

namespace {

// A group with little memory, below the current group of this process.  Empty if that is not possible here.
std::string make_small_group() {
  std::ifstream file("/proc/self/cgroup");
  std::stringstream cgroups;
  cgroups << file.rdbuf();
  const std::string counter = par::oom_counter_path(cgroups.str(), "/sys/fs/cgroup");
  const std::string name = "memory.oom_control";
  if (counter.size() < name.size() || counter.substr(counter.size() - name.size()) != name)
    return {};
  const std::string group =
      counter.substr(0, counter.size() - name.size()) + "evparallel-" + std::to_string(::getpid());
  if (::mkdir(group.c_str(), 0700) != 0) return {};
  std::ofstream(group + "/memory.limit_in_bytes") << (64 << 20) << std::flush;
  std::ofstream tasks(group + "/tasks");
  tasks << ::getpid() << std::flush;
  if (tasks) return group;
  ::rmdir(group.c_str());
  return {};
}

void leave_group(const std::string& group) {
  const std::string above = group.substr(0, group.rfind('/'));
  std::ofstream(above + "/tasks") << ::getpid() << std::flush;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_kill_for_lack_of_memory_has_its_cause) {
  if (testing::sanitized) return testing::skip("a sanitizer needs more memory than the group has");
  const int status = testing::elsewhere([] {
    const std::string group = make_small_group();
    if (group.empty()) return 77;
    par::init();
    const pid_t snapshot = par::default_snapshot().pid();
    int result = 1;
    {
      par::Reactor loop;
      auto p = par::process(loop, [](par::Pipe<int, int>) {
        std::ofstream("/proc/self/oom_score_adj") << 1000 << std::flush;
        for (;;) {
          auto* memory = new char[1 << 20];
          for (int i = 0; i < 1 << 20; i += 4096) const_cast<volatile char*>(memory)[i] = 1;
        }
      });
      p.on_error([](const par::Error&) {});
      auto q = par::process(loop, [](par::Pipe<int, int>) { ::raise(SIGKILL); });
      q.on_error([](const par::Error&) {});
      p.on_exit([&](const par::ExitStatus& s) {
        const bool reported = s.cause == par::Cause::out_of_memory && s.signal() == SIGKILL &&
                              s.describe().find("out of memory") != std::string::npos;
        result = reported ? 0 : 2;
      });
      loop.run();
    }
    par::default_snapshot().stop();
    testing::eventually([&] { return !testing::process_exists(snapshot); });
    ::waitpid(snapshot, nullptr, 0);
    leave_group(group);
    return ::rmdir(group.c_str()) == 0 ? result : 3;
  });
  if (status == 77) return testing::skip("no memory control group can be made here");
  BOOST_TEST(status == 0);
}
