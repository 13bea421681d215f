// spawn.cpp - the cost of a child: until its first answer, with a large parent, and many at once.
#include <evparallel/evparallel.hpp>

#include "floor.hpp"
#include "measure.hpp"

#include <spawn.h>

#include <array>
#include <cstdint>
#include <memory>

namespace par = evparallel;
using bench::Cpus;
using bench::now;

namespace {

constexpr int blocks = 5;
constexpr int spawns_a_block = 200;

long page_faults(std::int64_t) {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// Otherwise children end during the next measurement.
void settle() {
  ::usleep(300);
}

// Both snapshots are forked before anything else of either exists.
struct Snapshots {
  std::unique_ptr<par::Snapshot> ours;
  std::unique_ptr<bench::RawSnapshot> raw;
};

Snapshots take(Cpus where) {
  return bench::place(where, [] {
    Snapshots both;
    both.raw = std::make_unique<bench::RawSnapshot>();
    both.ours = std::make_unique<par::Snapshot>();
    return both;
  });
}

struct Spawner {
  Snapshots& snapshots;
  par::Reactor loop{};
  std::vector<double> our_faults{};
  std::vector<double> raw_faults{};

  double run() {
    par::Options options;
    options.snapshot = snapshots.ours.get();
    const double start = now();
    auto remote = par::run<par::RawIo, par::RawIo>(loop, page_faults, options);
    remote(std::int64_t{0},
           [&](par::Result<long> r) { our_faults.push_back(static_cast<double>(r.value())); });
    loop.run();
    const double end = now();
    remote = {};
    settle();
    return end - start;
  }

  double process() {
    par::Options options;
    options.snapshot = snapshots.ours.get();
    const double start = now();
    double end = 0;
    auto child = par::process<par::RawIo, par::RawIo>(
        loop,
        [](par::Pipe<std::int64_t, long> pipe) {
          pipe.on_message([pipe](std::int64_t x) mutable { pipe.send(page_faults(x)); });
        },
        options);
    child.on_message([&](long) {
      end = now();
      child.close();
    });
    child.send(0);
    loop.run();
    settle();
    return end - start;
  }

  double raw() {
    const double start = now();
    const int fd = snapshots.raw->spawn();
    raw_faults.push_back(static_cast<double>(bench::raw_first_answer(fd)));
    const double end = now();
    ::close(fd);
    settle();
    return end - start;
  }
};

double by_posix_spawn() {
  const double start = now();
  pid_t pid = 0;
  char name[] = "true";
  std::array<char*, 2> arguments{name, nullptr};
  if (::posix_spawn(&pid, "/bin/true", nullptr, nullptr, arguments.data(), nullptr) != 0) return 0;
  ::waitpid(pid, nullptr, 0);
  return now() - start;
}

// ---- the rows ----

void first_answers(Cpus where) {
  Snapshots snapshots = take(where);
  Spawner spawner{snapshots};
  const auto raw = [&] { return spawner.raw(); };
  const bool judged = where == Cpus::one;

  const bench::Pair run =
      bench::compare([&] { return spawner.run(); }, raw, blocks, spawns_a_block);
  bench::row("run: spawn + first answer", bench::name_of(where), bench::microseconds(run.ours),
             "raw snapshot " + bench::microseconds(run.floor), run.ratio,
             judged ? bench::at_most(1.3) : bench::Bar{});
  bench::row("the same, p99", bench::name_of(where), bench::microseconds(run.p99), "-", 0, {});
  const double faults = bench::median(spawner.our_faults) - bench::median(spawner.raw_faults);
  bench::row("page faults of a child up to its first answer", bench::name_of(where),
             std::to_string(static_cast<long>(bench::median(spawner.our_faults))),
             "raw " + std::to_string(static_cast<long>(bench::median(spawner.raw_faults))), faults,
             bench::at_most(40));
  const bench::Pair process =
      bench::compare([&] { return spawner.process(); }, raw, blocks, spawns_a_block);
  bench::row("process: spawn + first answer", bench::name_of(where),
             bench::microseconds(process.ours),
             "raw snapshot " + bench::microseconds(process.floor), process.ratio,
             judged ? bench::at_most(1.6) : bench::Bar{});
  const bench::Pair forks = bench::compare([&] { return spawner.run(); }, bench::by_fork, 2, 50);
  bench::row("run, against fork alone", bench::name_of(where), bench::microseconds(forks.ours),
             "fork " + bench::microseconds(forks.floor), forks.ratio, {});
  const bench::Pair programs = bench::compare([&] { return spawner.run(); }, by_posix_spawn, 2, 50);
  bench::row("run, against posix_spawn of /bin/true", bench::name_of(where),
             bench::microseconds(programs.ours),
             "posix_spawn " + bench::microseconds(programs.floor), programs.ratio, {});
  if (const double python = bench::peer("spawn"); python > 0)
    bench::row("run, against CPython's forkserver", bench::name_of(where),
               bench::microseconds(run.ours), "forkserver " + bench::microseconds(python),
               run.ours / python, {});
}

// ---- a large parent ----

// A program of its own that grows after its snapshot was taken, and spawns on request: two such programs take turns, so
// that both meet the same moments of the machine.
class Grown {
public:
  explicit Grown(std::size_t gigabytes) {
    const bench::Sockets sockets = bench::socket_pair(SOCK_STREAM);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(sockets.near);
      serve(sockets.far, gigabytes);
    }
    ::close(sockets.far);
    socket_ = sockets.near;
  }
  ~Grown() {
    ::close(socket_);
    ::waitpid(pid_, nullptr, 0);
  }
  Grown(const Grown&) = delete;
  Grown& operator=(const Grown&) = delete;

  double run() { return told_to('r'); }
  double fork() { return told_to('f'); }

private:
  double told_to(char what) {
    double seconds;
    bench::write_all(socket_, &what, sizeof what);
    bench::read_all(socket_, reinterpret_cast<char*>(&seconds), sizeof seconds);
    return seconds;
  }

  static void spawn_when_told(int socket, std::size_t gigabytes) {
    Snapshots snapshots = take(Cpus::one);
    Spawner spawner{snapshots};
    std::vector<std::unique_ptr<char[]>> heap;
    while (heap.size() < gigabytes) {
      heap.push_back(std::make_unique<char[]>(std::size_t{1} << 30));
      std::memset(heap.back().get(), 1, std::size_t{1} << 30);
    }
    for (char what; ::read(socket, &what, sizeof what) == sizeof what;) {
      const double seconds = what == 'r' ? spawner.run() : bench::by_fork();
      bench::write_all(socket, reinterpret_cast<const char*>(&seconds), sizeof seconds);
    }
  }
  [[noreturn]] static void serve(int socket, std::size_t gigabytes) {
    try {
      spawn_when_told(socket, gigabytes);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "bench: %s\n", error.what());
      ::_exit(1);
    }
    ::_exit(0);
  }

  pid_t pid_ = -1;
  int socket_ = -1;
};

// The first row is the error of the method itself.
void large_parents() {
  for (const std::size_t gigabytes : {0U, 1U, 4U}) {
    Grown empty(0);
    Grown grown(gigabytes);
    const bench::Pair pair =
        bench::compare([&] { return grown.run(); }, [&] { return empty.run(); }, blocks, 100);
    // Without turns: a fork of the whole heap leaves caches and page tables in a state that a spawn of the library does
    // not cause.
    std::vector<double> forks;
    for (int i = 0; i < 50; ++i) forks.push_back(grown.fork());
    const double forked = bench::median(forks);
    const std::string size = std::to_string(gigabytes) + " GB";
    bench::row("run, parent heap " + size, "one CPU", bench::microseconds(pair.ours),
               "0 GB " + bench::microseconds(pair.floor) + "; fork " + bench::microseconds(forked),
               pair.ratio, gigabytes == 4 ? bench::at_most(1.1) : bench::Bar{});
    bench::point("spawn-heap", static_cast<double>(gigabytes), pair.ours * 1e6, "run");
    bench::point("spawn-heap", static_cast<double>(gigabytes), forked * 1e6, "fork");
  }
}

// ---- children forked ahead ----

// The taken spare is replaced, and the ended child is gone, before the next unit begins: on a slow machine that takes 4
// ms.
void refill(par::Reactor& loop) {
  const par::Timer pause = loop.after(std::chrono::milliseconds(8), [] {});
  loop.run();
}

void with_spares(Cpus where) {
  par::SnapshotOptions with;
  with.spares = 2;
  par::Snapshot snapshot = bench::place(where, [&with] { return par::Snapshot(with); });
  par::Reactor loop;
  par::Options options;
  options.snapshot = &snapshot;
  auto living = par::run<par::RawIo, par::RawIo>(loop, page_faults, options);
  const auto round_trip = [&] {
    const double start = now();
    living(std::int64_t{0}, [](par::Result<long> r) { r.value(); });
    loop.run();
    const double end = now();
    refill(loop);
    return end - start;
  };
  // Everything is in the caches: no spawn is requested so soon after another.
  const auto next_round_trip = [&] {
    round_trip();
    for (int i = 0; i < 10; ++i) {
      living(std::int64_t{0}, [](par::Result<long> r) { r.value(); });
      loop.run();
    }
    const double start = now();
    living(std::int64_t{0}, [](par::Result<long> r) { r.value(); });
    loop.run();
    return now() - start;
  };
  const auto spawn = [&] {
    const double start = now();
    auto fresh = par::run<par::RawIo, par::RawIo>(loop, page_faults, options);
    fresh(std::int64_t{0}, [](par::Result<long> r) { r.value(); });
    loop.run();
    const double end = now();
    fresh = {};
    refill(loop);
    return end - start;
  };
  const bench::Pair pair = bench::compare(spawn, round_trip, blocks, spawns_a_block);
  bench::row("run with spares: spawn + first answer", bench::name_of(where),
             bench::microseconds(pair.ours), "round trip " + bench::microseconds(pair.floor),
             pair.ratio, bench::at_most(2));
  bench::row("the same, p99", bench::name_of(where), bench::microseconds(pair.p99), "-", 0, {});
  const bench::Pair next = bench::compare(spawn, next_round_trip, 2, 50);
  bench::row("the same, against one round trip of many in a row", bench::name_of(where),
             bench::microseconds(next.ours), "round trip " + bench::microseconds(next.floor),
             next.ratio, {});
}

// ---- many at once ----

constexpr int under_way = 32;
constexpr int in_all = 1500;

double ours_at_once(par::Reactor& loop, par::Snapshot& snapshot) {
  using Child = par::Remote<long(std::int64_t)>;
  par::Options options;
  options.snapshot = &snapshot;
  int started = 0;
  std::vector<Child> children(under_way);
  std::function<void(std::size_t)> start = [&](std::size_t place) {
    children[place] = {};
    if (started++ >= in_all) return;
    children[place] = par::run<par::RawIo, par::RawIo>(loop, page_faults, options);
    children[place](std::int64_t{0}, [&, place](par::Result<long> r) {
      r.value();
      start(place);
    });
  };
  const double begin = now();
  for (std::size_t i = 0; i < under_way; ++i) start(i);
  loop.run();
  return now() - begin;
}

double raw_at_once(const bench::RawSnapshot& snapshot) {
  std::vector<pollfd> places(under_way);
  int started = 0;
  int living = 0;
  const auto start = [&](pollfd& place) {
    place.fd = -1;
    if (started >= in_all) return;
    ++started;
    ++living;
    place = {snapshot.spawn(), POLLIN, 0};
    const char request[8] = {};
    bench::write_all(place.fd, request, sizeof request);
  };
  const double begin = now();
  for (pollfd& place : places) start(place);
  while (living > 0) {
    ::poll(places.data(), places.size(), -1);
    for (pollfd& place : places) {
      if (place.fd < 0 || !place.revents) continue;
      long faults;
      bench::read_all(place.fd, reinterpret_cast<char*>(&faults), sizeof faults);
      ::close(place.fd);
      --living;
      start(place);
    }
  }
  return now() - begin;
}

void at_once(Cpus where) {
  Snapshots snapshots = take(where);
  par::Reactor loop;
  const bench::Pair pair = bench::compare([&] { return ours_at_once(loop, *snapshots.ours); },
                                          [&] { return raw_at_once(*snapshots.raw); }, blocks, 1);
  bench::row("spawns a second, 32 under way", bench::name_of(where),
             bench::rate(in_all / pair.ours), "raw snapshot " + bench::rate(in_all / pair.floor),
             1 / pair.ratio, bench::at_least(0.85));
}

// ---- several replicas ----

// All processes on the first `count` CPUs, placed by the kernel.
void spread_over(std::size_t count) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (std::size_t i = 0; i < count; ++i) CPU_SET(bench::cpus()[i], &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) throw std::runtime_error("cannot pin");
}

void two_replicas(std::size_t cpus, bench::Bar bar) {
  spread_over(cpus);
  par::SnapshotOptions several;
  several.replicas = 2;
  par::Snapshot two(several);
  par::Snapshot one;
  par::Reactor loop;
  const bench::Pair pair = bench::compare([&] { return ours_at_once(loop, two); },
                                          [&] { return ours_at_once(loop, one); }, blocks, 3);
  bench::row("two replicas, spawns a second, 32 under way", std::to_string(cpus) + " CPUs",
             bench::rate(in_all / pair.ours), "one replica " + bench::rate(in_all / pair.floor),
             1 / pair.ratio, bar);
}

}  // namespace

int main() {
  for (const Cpus where : {Cpus::one, Cpus::two}) bench::apart([where] { first_answers(where); });
  for (const Cpus where : {Cpus::one, Cpus::two}) bench::apart([where] { with_spares(where); });
  bench::apart(large_parents);
  for (const Cpus where : {Cpus::one, Cpus::two}) bench::apart([where] { at_once(where); });
  if (bench::cpus().size() < 2) return 0;
  bench::apart([] { two_replicas(2, bench::at_least(0.95)); });
  if (bench::cpus().size() >= 4) bench::apart([] { two_replicas(bench::cpus().size(), {}); });
}
