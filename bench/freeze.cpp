// freeze.cpp - the cost of a child of a frozen snapshot, compared with one of an empty snapshot and with a fork of the
// same heap; and the cost of freezing.
#include <evparallel/evparallel.hpp>

#include "floor.hpp"
#include "measure.hpp"

#include <sys/mman.h>
#include <sys/prctl.h>

#include <cstdint>
#include <fstream>
#include <map>
#include <memory>

namespace par = evparallel;
using bench::now;

namespace {

constexpr int blocks = 5;
constexpr std::size_t gigabyte = std::size_t{1} << 30;

// A quarter of a gigabyte in nodes of a map, the rest in one block.
std::map<std::int64_t, std::int64_t>* table = nullptr;
char* volatile block = nullptr;  // the compiler must not drop it
constexpr std::int64_t entries = gigabyte / 4 / 64;

void fill_heap(std::size_t gigabytes) {
  table = new std::map<std::int64_t, std::int64_t>;
  for (std::int64_t i = 0; i < entries; ++i) table->emplace_hint(table->end(), i, 2 * i);
  const std::size_t rest = gigabytes * gigabyte - gigabyte / 4;
  block = static_cast<char*>(std::malloc(rest));
  std::memset(block, 1, rest);
}

std::int64_t same(std::int64_t x) {
  return x;
}

std::int64_t four_look_ups(std::int64_t x) {
  std::int64_t sum = 0;
  for (std::int64_t i = 1; i <= 4; ++i) sum += table->at((x * 7919 + i * 1048573) % entries);
  return sum;
}

struct Spawner {
  par::Reactor loop{};
  std::int64_t turn = 0;

  double spawn(par::Snapshot& snapshot, std::int64_t (*f)(std::int64_t)) {
    par::Options options;
    options.snapshot = &snapshot;
    const double start = now();
    auto remote = par::run<par::RawIo, par::RawIo>(loop, f, options);
    remote(++turn, [](par::Result<std::int64_t> r) { r.value(); });
    loop.run();
    const double end = now();
    remote = {};
    ::usleep(300);  // otherwise children end during the next measurement
    return end - start;
  }
};

// The pages of frozen memory of which the process has its own copy.
double written_pages(pid_t pid) {
  std::ifstream smaps("/proc/" + std::to_string(pid) + "/smaps");
  bool here = false;
  double kilobytes = 0;
  for (std::string line; std::getline(smaps, line);) {
    if (line[0] < 'A' || line[0] > 'Z') here = line.find("evparallel frozen") != std::string::npos;
    if (here && line.compare(0, 10, "Anonymous:") == 0) kilobytes += std::atof(line.c_str() + 10);
  }
  return kilobytes * 1024 / static_cast<double>(::getpagesize());
}

double available_memory() {
  std::ifstream meminfo("/proc/meminfo");
  double kilobytes = 0;
  for (std::string word; meminfo >> word;)
    if (word == "MemAvailable:") meminfo >> kilobytes;
  return kilobytes * 1024;
}

// The least available memory until least() is called; a process of its own measures it.
class Watcher {
public:
  Watcher() {
    void* shared =
        ::mmap(nullptr, sizeof *least_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) throw std::runtime_error("no shared memory");
    least_ = static_cast<double*>(shared);
    *least_ = available_memory();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;; ::usleep(2000)) *least_ = std::min(*least_, available_memory());
  }
  double least() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    return *least_;
  }

private:
  double* least_ = nullptr;
  pid_t pid_ = -1;
};

// A virtual machine gets memory from its host at the first touch, which takes many times as long as a copy: that is not
// to be measured.
void warm_up(std::size_t gigabytes) {
  bench::apart([gigabytes] {
    char* volatile memory = static_cast<char*>(std::malloc(gigabytes * gigabyte));
    if (memory) std::memset(memory, 1, gigabytes * gigabyte);
  });
}

par::Snapshot take_frozen(const std::string& size, double gigabytes) {
  Watcher watcher;
  par::SnapshotOptions options;
  options.freeze = true;
  const double start = now();
  par::Snapshot snapshot(options);
  const double time = now() - start;
  if (static_cast<double>(snapshot.frozen_bytes()) < gigabytes * 0.99 * gigabyte)
    throw std::runtime_error("not all is frozen");
  const double above = std::max(0.0, available_memory() - watcher.least());
  bench::row("freezing " + size + ", for each GB", "one CPU", bench::microseconds(time / gigabytes),
             "-", time / gigabytes, {});
  bench::row("memory of that above what it leaves, MB", "one CPU", bench::kilobytes(above), "-",
             above / 1048576, {});
  return snapshot;
}

void frozen(std::size_t gigabytes) {
  const std::string size = std::to_string(gigabytes) + " GB";
  bench::pin_to(bench::cpus().front());
  par::Snapshot empty;
  fill_heap(gigabytes);
  warm_up(gigabytes);
  par::Snapshot full = take_frozen(size, static_cast<double>(gigabytes));
  Spawner spawner;
  const auto plain = [&] { return spawner.spawn(empty, same); };

  const auto against_empty = [&](const std::string& question, auto f, const std::string& beside,
                                 const bench::Bar& bar) {
    const bench::Pair pair =
        bench::compare([&] { return spawner.spawn(full, f); }, plain, blocks, 100);
    bench::row(question, "one CPU", bench::microseconds(pair.ours),
               "empty " + bench::microseconds(pair.floor) + beside, pair.ratio, bar);
    return pair.ours;
  };
  std::vector<double> forks;
  for (int i = 0; i < 20; ++i) forks.push_back(bench::by_fork());
  const double fork = bench::median(forks);
  against_empty("run, " + size + " frozen in the snapshot", same,
                "; fork " + bench::microseconds(fork), bench::at_most(1.5));
  against_empty("the same, with four look-ups in it", four_look_ups, "", {});
  for (int i = 0; i < 1000; ++i) spawner.spawn(full, four_look_ups);
  against_empty("the same without them, after 1000 spawns more", same, "", bench::at_most(1.5));
  const double written = written_pages(full.pid());
  bench::row("pages that it has written since it was frozen", "one CPU",
             std::to_string(static_cast<long>(written)), "-", written, bench::at_most(16));
}

}  // namespace

// GIGABYTES: only this size.
int main() {
  const char* only = std::getenv("GIGABYTES");
  for (const std::size_t gigabytes : {std::size_t{1}, std::size_t{4}})
    if (!only || std::to_string(gigabytes) == only) bench::apart([=] { frozen(gigabytes); });
}
