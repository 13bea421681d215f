// frozen.cpp - frozen snapshots, with the public interface.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

namespace par = evparallel;
using testing::ask;
using testing::elsewhere;
using testing::error_of;
using testing::gone;
using testing::has;
using testing::in;
using namespace std::chrono_literals;

namespace {

constexpr const char* probe = "EVPARALLEL_TEST_PROBE";
constexpr std::size_t mb = std::size_t{1} << 20;

}  // namespace

// In a program with another allocator, or a sanitizer, or under valgrind, no other case runs.
void testing_main_init() {
  const char* expected = std::getenv(probe);
  if (!expected) return;
  par::SnapshotOptions options;
  options.freeze = true;
  const auto error = error_of([&] { const par::Snapshot snapshot(options); });
  const bool good = error && error->code() == par::Errc::refused && has(error->what(), expected) &&
                    has(error->what(), "or set SnapshotOptions::freeze to false");
  if (!good) std::printf("%s, and not: %s\n", error ? error->what() : "no error", expected);
  std::fflush(stdout);
  ::_exit(good ? 0 : 1);
}

namespace {

par::SnapshotOptions frozen(unsigned replicas = 1) {
  par::SnapshotOptions options;
  options.freeze = true;
  options.replicas = replicas;
  return options;
}

// A table with this number of entries of some 100 bytes each, and a large block.
struct Table {
  std::map<int, std::string> map{};
  char* block = nullptr;
  static constexpr std::size_t size = 8 * mb;
};
Table& table() {
  static auto* one = new Table;
  return *one;
}
void fill_table() {
  for (int i = 0; i < 20000; ++i) table().map[i] = "the value that belongs to " + std::to_string(i);
  table().block = static_cast<char*>(std::malloc(Table::size));
  std::memset(table().block, 'a', Table::size);
}

std::string look_up(int key) {
  const auto found = table().map.find(key);
  return found == table().map.end() ? "none" : found->second;
}

// The inodes of the files that are mapped as frozen memory.
std::set<std::string> files_of(pid_t pid) {
  std::set<std::string> inodes;
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (!has(line, "evparallel frozen")) continue;
    std::istringstream words(line);
    std::string inode;
    for (int i = 0; i < 5; ++i) words >> inode;
    inodes.insert(inode);
  }
  return inodes;
}

// Kilobytes of frozen memory of which the process has copies of its own.  (Pages that it has only
// read count as private and dirty, too, while no other process maps them.)
long written_in(pid_t pid) {
  std::ifstream smaps("/proc/" + std::to_string(pid) + "/smaps");
  bool here = false;
  long kilobytes = 0;
  for (std::string line; std::getline(smaps, line);) {
    if (line[0] < 'A' || line[0] > 'Z') here = has(line, "evparallel frozen");
    constexpr std::size_t label = sizeof "Anonymous:" - 1;
    if (here && line.compare(0, label, "Anonymous:") == 0)
      kilobytes += std::atol(line.c_str() + label);
  }
  return kilobytes;
}

}  // namespace

// ---- memory of children ----

BOOST_AUTO_TEST_CASE(nothing_is_frozen_without_the_option) {
  const int status = elsewhere([] {
    fill_table();
    par::Snapshot snapshot;
    return snapshot.frozen_bytes() == 0 && files_of(snapshot.pid()).empty() ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(children_have_all_memory_and_can_allocate) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    fill_table();
    par::Snapshot snapshot(frozen());
    if (snapshot.frozen_bytes() < Table::size + mb || files_of(snapshot.pid()).size() < 2) return 1;
    if (!files_of(::getpid()).empty()) return 2;  // the program itself is unchanged
    par::Reactor loop;
    auto same = par::run(
        loop,
        [] {
          for (int i = 0; i < 20000; ++i)
            if (look_up(i) != "the value that belongs to " + std::to_string(i)) return 1;
          for (std::size_t i = 0; i < Table::size; ++i)
            if (table().block[i] != 'a') return 2;
          for (int i = 0; i < 20000; i += 2) table().map.erase(i);
          for (int i = 20000; i < 60000; ++i) table().map[i] = std::string(60, 'n');
          table().block = static_cast<char*>(std::realloc(table().block, 3 * Table::size));
          std::memset(table().block + Table::size, 'b', 2 * Table::size);
          if (table().block[Table::size - 1] != 'a' || table().map.size() != 50000) return 3;
          std::free(table().block);
          return 0;
        },
        in(snapshot));
    const int child = ask(loop, same);
    if (child != 0) return 10 + child;
    auto again = par::run(loop, look_up, in(snapshot));
    return ask(loop, again, 4) == "the value that belongs to 4" && table().map.size() == 20000 ? 0
                                                                                               : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(writes_of_a_child_are_seen_by_no_other_process) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    fill_table();
    par::Snapshot snapshot(frozen());
    par::Reactor loop;
    const auto change = [](int key) {
      std::string before = look_up(7) + table().block[100];
      table().map[7] = "changed by " + std::to_string(key);
      std::memset(table().block, 'x', Table::size);
      return before;
    };
    auto one = par::run(loop, change, in(snapshot));
    auto other = par::run(loop, change, in(snapshot));
    const std::string fresh = "the value that belongs to 7a";
    if (ask(loop, one, 1) != fresh || ask(loop, one, 2) != "changed by 1x") return 1;
    if (ask(loop, other, 3) != fresh || ask(loop, one, 4) != "changed by 2x") return 2;
    table().map[7] = "changed by the program";
    auto third = par::run(loop, change, in(snapshot));
    return ask(loop, third, 5) == fresh && table().block[100] == 'a' ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(children_of_children_have_the_frozen_memory) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    fill_table();
    par::Snapshot snapshot(frozen());
    par::Reactor loop;
    auto f = par::run(
        loop,
        [](int key) {
          par::Reactor& here = par::this_reactor();
          table().map.clear();
          auto inner = par::run(here, look_up);
          std::string answer;
          inner(key, [&](par::Result<std::string> r) { answer = r.value(); });
          here.run();
          return answer;
        },
        in(snapshot));
    return ask(loop, f, 12) == "the value that belongs to 12" ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(named_memory_is_frozen) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    static char in_program[4 * mb];
    std::memset(in_program, 'p', sizeof in_program);
    const std::uint64_t without = par::Snapshot(frozen()).frozen_bytes();
    par::freezable(in_program, sizeof in_program);
    par::Snapshot snapshot(frozen());
    if (snapshot.frozen_bytes() < without + 3 * mb) return 1;
    par::Reactor loop;
    auto f = par::run(
        loop, [](int i) { return static_cast<int>(in_program[i]); }, in(snapshot));
    return ask(loop, f, 2000000) == 'p' ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

// A process that writes into a frozen page has to copy page tables again.
BOOST_AUTO_TEST_CASE(the_snapshot_writes_to_no_frozen_page) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    fill_table();
    std::FILE* file = std::fopen("/dev/null", "w");  // whose lock is in the heap
    std::vector<std::string> small(1000, std::string(100, 's'));
    par::Snapshot snapshot(frozen());
    par::Reactor loop;
    for (int i = 0; i < 1000; ++i) {
      auto f = par::run(loop, look_up, in(snapshot));
      if (ask(loop, f, i) == "none") return 1;
    }
    const long kilobytes = written_in(snapshot.pid());
    std::fclose(file);
    std::fprintf(stderr, "# %ld kB of frozen memory written\n", kilobytes);
    return kilobytes * 1024 <= 16 * ::getpagesize() ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

// ---- replicas ----

BOOST_AUTO_TEST_CASE(replicas_have_the_same_files_and_are_children_of_the_program) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    fill_table();
    std::optional<par::Snapshot> snapshot(frozen(3));
    const std::vector<pid_t> pids = snapshot->pids();
    const std::vector<pid_t> children = testing::children_of(::getpid());
    if (std::set<pid_t>(pids.begin(), pids.end()) !=
        std::set<pid_t>(children.begin(), children.end()))
      return 1;
    const std::set<std::string> files = files_of(pids[0]);
    if (files.size() < 2 || files_of(pids[1]) != files || files_of(pids[2]) != files) return 2;
    par::Reactor loop;
    for (int i = 0; i < 6; ++i) {
      auto where = par::run(
          loop, [] { return ::getppid(); }, in(*snapshot));
      if (ask(loop, where) != pids[static_cast<std::size_t>(i) % 3]) return 3;
    }
    for (const pid_t pid : pids)
      if (::getpgid(pid) != pid) return 4;
    snapshot.reset();
    for (const pid_t pid : pids)
      if (!gone(pid)) return 5;
    return 0;
  });
  BOOST_TEST(status == 0);
}

// The first replica is not a parent of the others.
BOOST_AUTO_TEST_CASE(replicas_outlive_the_first) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    fill_table();
    par::Snapshot snapshot(frozen(3));
    const std::vector<pid_t> pids = snapshot.pids();
    par::Reactor loop;
    std::vector<pid_t> lost;
    snapshot.on_lost([&](const par::ExitStatus& how) { lost.push_back(how.pid); });
    ::kill(pids[0], SIGKILL);
    if (!gone(pids[0])) return 1;
    for (int i = 0; i < 4; ++i) {
      auto f = par::run(loop, look_up, in(snapshot));
      if (ask(loop, f, i) == "none") return 2;
    }
    if (lost != std::vector<pid_t>{pids[0]} || !snapshot.alive()) return 3;
    ::kill(pids[2], SIGKILL);
    if (!gone(pids[2])) return 4;
    auto f = par::run(
        loop, [] { return ::getppid(); }, in(snapshot));
    const pid_t from = ask(loop, f);
    if (from == pids[0] || from == pids[2]) return 5;
    return lost.size() == 2 && lost[1] == pids[2] ? 0 : 6;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(replicas_end_with_the_program) {
  if (testing::skipped_unfrozen()) return;
  int ends[2];
  BOOST_REQUIRE(::pipe(ends) == 0);
  const int status = elsewhere([&] {
    fill_table();
    const par::Snapshot snapshot(frozen(3));
    for (const pid_t pid : snapshot.pids())
      if (::write(ends[1], &pid, sizeof pid) != sizeof pid) return 1;
    ::kill(::getpid(), SIGKILL);
    return 2;
  });
  BOOST_TEST(status == 100 + SIGKILL);
  for (int i = 0; i < 3; ++i) {
    pid_t pid = 0;
    BOOST_REQUIRE(::read(ends[0], &pid, sizeof pid) == static_cast<ssize_t>(sizeof pid));
    BOOST_TEST(gone(pid));
  }
  ::close(ends[0]);
  ::close(ends[1]);
}

// ---- cores ----

BOOST_AUTO_TEST_CASE(the_core_of_a_child_contains_frozen_memory) {
  if (testing::skipped_unfrozen()) return;
  if (testing::skipped_without_cores()) return;
  const testing::Folder folder;
  const int status = elsewhere([&] {
    // The marker exists nowhere else when the snapshot is taken.
    const auto put_marker = [](char* to) {
      for (int i = 0; i < 40; ++i) to[i] = static_cast<char>('!' + i * 37 % 80);
    };
    fill_table();
    put_marker(table().block + 5 * mb);
    testing::write_cores();
    par::Snapshot snapshot(frozen());
    std::memset(table().block, 0, Table::size);
    par::Reactor loop;
    par::Options options = in(snapshot);
    options.cwd = folder.path();
    auto f = par::run(
        loop,
        []() -> int {
          ::signal(SIGABRT, SIG_DFL);
          ::abort();
        },
        options);
    bool dumped = false;
    f([&](par::Result<int> r) {
      dumped = !r && r.error().exit() && r.error().exit()->core_dumped();
    });
    loop.run();
    if (!dumped) return 1;
    std::string core;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      std::ifstream file(entry.path(), std::ios::binary);
      core.assign(std::istreambuf_iterator<char>(file), {});
    }
    std::string marker(40, ' ');
    put_marker(marker.data());
    return has(core, marker) ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

// ---- refusals and failures ----

namespace {

std::string own_path() {
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

// The result of this program, executed again with a probe: see above.
int probed(const char* expected, const std::string& preloaded, const char* under = nullptr) {
  const std::string self = own_path();
  return elsewhere([&] {
    ::setenv(probe, expected, 1);
    if (!preloaded.empty()) ::setenv("LD_PRELOAD", testing::library_path(preloaded).c_str(), 1);
    if (under)
      ::execlp(under, under, "-q", "--error-exitcode=3", self.c_str(), nullptr);
    else
      ::execl(self.c_str(), self.c_str(), nullptr);
    return 97;
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(freezing_is_refused_without_memfd_create) {
  if (testing::sanitized)
    return testing::skip("a sanitizer must be loaded before any other library");
  BOOST_TEST(probed("memfd_create", "no_memfd.so") == 0);
}

BOOST_AUTO_TEST_CASE(a_system_that_forbids_executable_memfds_is_supported) {
  if (testing::skipped_unfrozen()) return;
  const auto status = testing::elsewhere_without_programs_in_memory([] {
    fill_table();
    par::Snapshot snapshot(frozen(2));
    par::Reactor loop;
    auto f = par::run(loop, look_up, in(snapshot));
    return ask(loop, f, 1) != "none" ? 0 : 1;
  });
  if (!status) return testing::skip("such a system cannot be had");
  BOOST_TEST(*status == 0);
}

BOOST_AUTO_TEST_CASE(an_exceeded_file_size_limit_is_reported) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    fill_table();
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    const rlim_t before = std::exchange(limit.rlim_cur, mb);
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const auto error = error_of([] { const par::Snapshot snapshot(frozen(2)); });
    if (!error || error->code() != par::Errc::spawn_failed || error->os_error() != EFBIG) return 1;
    if (!has(error->what(), "RLIMIT_FSIZE") || !has(error->what(), "frozen")) return 2;
    if (!testing::children_of(::getpid()).empty()) return 3;
    limit.rlim_cur = before;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    par::Snapshot snapshot(frozen(2));
    par::Reactor loop;
    auto f = par::run(loop, look_up, in(snapshot));
    return ask(loop, f, 1) != "none" ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(another_allocator_or_a_sanitizer_is_refused_by_name) {
  if (testing::sanitized) {
    BOOST_TEST(probed("AddressSanitizer", "") == 0);
    return;
  }
  BOOST_TEST(probed("jemalloc", "jemalloc.so") == 0);
  BOOST_TEST(probed("ThreadSanitizer", "tsan.so") == 0);
  BOOST_TEST(probed("another allocator", "allocator.so") == 0);
}

BOOST_AUTO_TEST_CASE(freezing_is_refused_under_valgrind) {
  if (testing::sanitized) return testing::skip("valgrind runs no program with a sanitizer");
  if (std::system("valgrind --version >/dev/null 2>&1") != 0)
    return testing::skip("there is no valgrind");
  // valgrind ends at once if it cannot read the debug information of the compiler (a newer clang).
  if (std::system(("valgrind -q " + own_path() + " --version >/dev/null 2>&1").c_str()) != 0)
    return testing::skip("valgrind cannot run this program");
  BOOST_TEST(probed("it runs under valgrind", "", "valgrind") == 0);
}

// The new process maps the files of the one that forked it.
BOOST_AUTO_TEST_CASE(a_new_replica_of_a_frozen_snapshot_is_frozen) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    fill_table();
    par::Snapshot snapshot(frozen(2));
    const std::vector<pid_t> before = snapshot.pids();
    par::Reactor loop;
    auto f = par::run(loop, look_up, in(snapshot));
    const std::string row = ask(loop, f, 1);
    if (row == "none") return 1;
    ::kill(before[1], SIGKILL);
    if (!testing::loop_until(loop, [&] { return snapshot.pids()[1] != before[1]; })) return 2;
    const auto frozen_mappings = [](pid_t pid) {
      std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
      int count = 0;
      for (std::string line; std::getline(maps, line);)
        count += line.find("evparallel frozen") != line.npos;
      return count;
    };
    const int mappings = frozen_mappings(snapshot.pids()[1]);
    if (mappings == 0 || mappings != frozen_mappings(before[0])) return 3;
    for (int i = 0; i < 2; ++i) {
      auto g = par::run(loop, look_up, in(snapshot));
      if (ask(loop, g, 1) != row) return 4;
    }
    return 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_standby_and_a_clone_of_a_frozen_snapshot_are_frozen) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    fill_table();
    par::SnapshotOptions options = frozen(1);
    options.standby = true;
    par::Snapshot snapshot(options);
    par::Reactor loop;
    par::Snapshot clone = snapshot.clone();
    if (clone.frozen_bytes() == 0 || clone.frozen_bytes() != snapshot.frozen_bytes()) return 1;
    auto f = par::run(loop, look_up, in(snapshot));
    auto g = par::run(loop, look_up, in(clone));
    const std::string row = ask(loop, f, 1);
    if (row == "none" || ask(loop, g, 1) != row) return 2;
    const pid_t dead = snapshot.pid();
    ::kill(dead, SIGKILL);
    if (!testing::loop_until(loop, [&] { return snapshot.pid() != dead; })) return 3;
    // The end of the child of the dead one may not be known yet.
    auto h = par::run(loop, look_up, in(snapshot));
    return ask(loop, h, 1) == row ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}
