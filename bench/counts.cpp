// counts.cpp - a few steps for callgrind to count: see counts.sh.
//
// counts STEP TIMES: repeats one step TIMES times, in a parent, a snapshot and children that all end by themselves, so
// that each writes its numbers.  Prints the role of each process.
#include <evparallel/evparallel.hpp>

#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace par = evparallel;

namespace {

using Message = std::array<char, 64>;

Message same(const Message& message) {
  return message;
}
int same_number(int number) {
  return number;
}

long page_faults(int who) {
  rusage usage{};
  ::getrusage(who, &usage);
  return usage.ru_minflt;
}

// On several CPUs the scheduler would decide how much is gathered.
void stay_on_one_cpu() {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(std::max(::sched_getcpu(), 0)), &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0)
    throw std::runtime_error("counts: cannot stay");
}

struct Scene {
  par::Snapshot snapshot{};
  par::Reactor loop{};
  par::Options options{};
  Scene() { options.snapshot = &snapshot; }

  // Waits for the end of the snapshot, so that it writes its numbers, and counts those of its children.
  void end() {
    const pid_t pid = snapshot.pid();
    snapshot.stop();
    if (::waitpid(pid, nullptr, 0) != pid)
      throw std::runtime_error("counts: no snapshot to wait for");
    std::printf("snapshot %d\n", static_cast<int>(pid));
    std::printf("faults %ld %ld\n", page_faults(RUSAGE_SELF), page_faults(RUSAGE_CHILDREN));
  }
};

// `under_way` calls at a time.
template <class Remote, class Value>
void call(Scene& scene, Remote& remote, const Value& value, long times, long under_way) {
  std::function<void()> next = [&] {
    if (times-- <= 0) return;
    remote(value, [&](typename Remote::result_type r) {
      r.value();
      next();
    });
  };
  for (long i = 0; i < under_way; ++i) next();
  scene.loop.run();
}

void raw_calls(Scene& scene, long times, long under_way) {
  auto remote = par::run<par::RawIo, par::RawIo>(scene.loop, same, scene.options);
  call(scene, remote, Message{}, times, under_way);
}
void json_calls(Scene& scene, long times, long under_way) {
  auto remote = par::run(scene.loop, same_number, scene.options);
  call(scene, remote, 12345, times, under_way);
}

void runs(Scene& scene, long times) {
  for (long i = 0; i < times; ++i) raw_calls(scene, 1, 1);
}

void processes(Scene& scene, long times) {
  for (long i = 0; i < times; ++i) {
    auto child = par::process<par::RawIo, par::RawIo>(
        scene.loop,
        [](par::Pipe<Message, Message> pipe) {
          pipe.on_message([pipe](const Message& message) mutable { pipe.send(message); });
        },
        scene.options);
    child.on_message([&](const Message&) { child.close(); });
    child.send(Message{});
    scene.loop.run();
  }
}

void map(Scene& scene, long times) {
  par::PoolOptions options;
  options.workers = 1;
  options.child = scene.options;
  auto pool = par::pool<par::RawIo, par::RawIo>(scene.loop, same_number, options);
  std::vector<int> numbers(static_cast<std::size_t>(times), 12345);
  par::MapOptions by_chunks{};
  by_chunks.chunk = 1000;
  pool.map(
      numbers, [](std::size_t, par::Result<int> r) { r.value(); }, [](const par::MapSummary&) {},
      std::move(by_chunks));
  scene.loop.run();
}

void play(Scene& scene, const std::string& step, long times) {
  if (step == "call") return raw_calls(scene, times, 1);
  if (step == "json") return json_calls(scene, times, 1);
  if (step == "flight") return raw_calls(scene, times, 64);
  if (step == "run") return runs(scene, times);
  if (step == "process") return processes(scene, times);
  if (step == "map") return map(scene, times);
  throw std::invalid_argument("counts: no such step: " + step);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  stay_on_one_cpu();
  Scene scene;
  std::printf("parent %d\n", static_cast<int>(::getpid()));
  play(scene, arguments[1], std::atol(arguments[2]));
  scene.end();
}
