// out_of_memory.cpp - the kernel's killer, and how it is told from other kills.
#include "elsewhere.hpp"
#include "testing.hpp"

#include "out_of_memory.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace par = evparallel;

BOOST_AUTO_TEST_CASE(where_the_kills_are_counted) {
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
  touch(mount + "/memory/memory.oom_control");  // the group's own path may be the host's
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

// A group of our own with little memory, below the one that we are in; empty: not possible here.
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

BOOST_AUTO_TEST_CASE(out_of_memory) {
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
        const bool told = s.cause == par::Cause::out_of_memory && s.signal() == SIGKILL &&
                          s.describe().find("out of memory") != std::string::npos;
        result = told ? 0 : 2;
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
