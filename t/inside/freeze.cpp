// freeze.cpp - frozen memory: which memory is frozen, and which uses of it are possible.
#include "elsewhere.hpp"
#include "failpoint_actions.hpp"
#include "private_names.hpp"
#include "testing.hpp"

#include "snapshot/freeze_memory.hpp"
#include "snapshot/freezable_regions.hpp"

#include <evparallel/freeze.hpp>

#include <dirent.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <ucontext.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <numeric>
#include <thread>

namespace par = evparallel;
using failpoints::Failpoint;
using par::FreezeStep;
using testing::elsewhere;

namespace {

constexpr std::size_t mb = std::size_t{1} << 20;
const auto page = static_cast<std::size_t>(::getpagesize());

bool yes(const void*) {
  return true;
}

par::FreezeOutcome freeze() {
  return par::freeze(yes, nullptr);
}

bool frozen_whole() {
  return freeze().failed_at == FreezeStep::none;
}

// The line of /proc/self/maps, or the flags, of the mapping that contains this address.
std::string mapping_of(const void* address, bool flags = false) {
  std::ifstream smaps("/proc/self/smaps");
  std::string head;
  for (std::string line; std::getline(smaps, line);) {
    if (line[0] < 'A' || line[0] > 'Z') head = line;
    if (line.compare(0, 8, "VmFlags:") != 0) continue;
    char* end = nullptr;
    const std::uint64_t from = std::strtoull(head.c_str(), &end, 16);
    const std::uint64_t to = std::strtoull(end + 1, nullptr, 16);
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    if (at >= from && at < to) return flags ? line : head;
  }
  return {};
}

bool is_frozen(const void* address) {
  return mapping_of(address).find("evparallel frozen") != std::string::npos;
}

char* map_pages(std::size_t size, int protection = PROT_READ | PROT_WRITE) {
  void* memory = ::mmap(nullptr, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
}

// The byte at `i` of a filled block: all pages differ.
char sample(std::size_t i) {
  return static_cast<char>(i * 31 + i / 4096 * 7 + 1);
}
char* fill(char* block, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) block[i] = sample(i);
  return block;
}
bool is_filled(const char* block, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i)
    if (block[i] != sample(i)) return false;
  return true;
}
char* filled(std::size_t size) {
  return fill(static_cast<char*>(std::malloc(size)), size);
}

// The status of a fork of this process that runs f.
template <class F>
int in_fork(F f) {
  return elsewhere([&] { return f() ? 0 : 1; });
}

bool finds(const void* address) {
  par::Regions regions;
  if (regions.look() != 0) return false;
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (const par::Region& region : regions)
    if (at >= region.from && at < region.to) return true;
  return false;
}

}  // namespace

// ---- found regions ----

BOOST_AUTO_TEST_CASE(the_heap_and_memory_mapped_by_malloc_are_found) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* mapped = filled(2 * mb);
    char* mapped_too = filled(mb);
    ::mallopt(M_MMAP_THRESHOLD, static_cast<int>(64 * mb));
    char* in_heap = filled(2 * mb);
    if (mapping_of(in_heap).find("[heap]") == std::string::npos) return 1;
    if (!finds(mapped + mb) || !finds(mapped_too + mb / 2)) return 2;
    if (!finds(in_heap + mb)) return 3;
    static char in_program[2 * mb];
    fill(in_program, sizeof in_program);
    if (finds(in_program + mb)) return 4;
    int local = 0;
    if (finds(&local)) return 5;
    return 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(aligned_blocks_and_arenas_of_threads_are_found) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    void* aligned = nullptr;
    if (::posix_memalign(&aligned, 64 * 1024, 2 * mb) != 0) return 1;
    fill(static_cast<char*>(aligned), 2 * mb);
    std::vector<char*> blocks;
    std::thread([&] {
      for (int i = 0; i < 100; ++i) blocks.push_back(filled(50000));
    }).join();
    if (mapping_of(blocks[50]).find("[heap]") != std::string::npos) return 2;
    if (!finds(static_cast<char*>(aligned) + mb)) return 3;
    if (!finds(blocks[50])) return 4;
    if (!frozen_whole() || !is_frozen(blocks[50]) || !is_frozen(aligned)) return 5;
    for (const char* block : blocks)
      if (!is_filled(block, 50000)) return 6;
    for (char* block : blocks) std::free(block);
    std::free(aligned);
    std::thread([&] {
      for (char*& block : blocks) block = filled(60000);
    }).join();
    for (const char* block : blocks)
      if (!is_filled(block, 60000)) return 7;
    return 0;
  });
  BOOST_TEST(status == 0);
}

// The program may rely on properties of such memory, and it is not malloc's.
BOOST_AUTO_TEST_CASE(memory_mapped_by_the_program_is_found_only_if_it_is_named) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* own = fill(map_pages(4 * mb), 4 * mb);
    if (finds(own + mb)) return 1;
    par::freezable(own + 100, 2 * mb);
    if (!finds(own + page) || !finds(own + mb)) return 2;
    if (finds(own) || finds(own + 2 * mb)) return 3;  // not a page that was named in part
    static char in_program[8 * 4096];
    std::memset(in_program, 1, sizeof in_program);
    par::freezable(in_program, sizeof in_program);
    if (!finds(in_program + 4 * 4096)) return 4;
    if (!frozen_whole() || !is_frozen(own + mb) || is_frozen(own + 3 * mb)) return 5;
    return is_filled(own, 4 * mb) ? 0 : 6;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(naming_an_impossible_range_is_misuse) {
  BOOST_CHECK_THROW(par::freezable(nullptr, 1), std::logic_error);
  int local = 0;
  BOOST_CHECK_THROW(par::freezable(&local, SIZE_MAX), std::logic_error);
  par::freezable(nullptr, 0);
  par::freezable(&local, sizeof local);  // less than a page: has no effect
}

// Naming does not help here, nor do blocks of malloc in some of these regions.
BOOST_AUTO_TEST_CASE(special_memory_is_not_found) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    const auto advised = [](int advice) {
      char* block = fill(map_pages(mb), mb);
      if (::madvise(block, mb, advice) != 0) return static_cast<char*>(nullptr);
      par::freezable(block, mb);
      return block;
    };
    int i = 0;
    for (const int advice : {MADV_WIPEONFORK, MADV_DONTFORK, MADV_DONTDUMP, MADV_SEQUENTIAL}) {
      ++i;
      const char* block = advised(advice);
      if (!block || finds(block + mb / 2)) return i;
    }
    char* locked = fill(map_pages(mb), mb);
    par::freezable(locked, mb);
    if (::mlock(locked, mb) != 0 || finds(locked + mb / 2)) return 10;
    ::munlock(locked, mb);
    if (!finds(locked + mb / 2)) return 11;
    ::mprotect(locked, mb, PROT_READ);
    if (finds(locked + mb / 2)) return 12;
    void* shared = ::mmap(nullptr, mb, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fill(static_cast<char*>(shared), mb);
    par::freezable(shared, mb);
    return finds(static_cast<char*>(shared) + mb / 2) ? 13 : 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(small_or_untouched_memory_is_left_alone) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    // Without neighbours: the kernel would merge them into one mapping.
    const auto block_of = [](std::size_t size) {
      char* block = map_pages(size + 2 * page, PROT_NONE) + page;
      ::mprotect(block, size, PROT_READ | PROT_WRITE);
      // The header of a malloc block: on i386 it begins at a distance, and says so.
      constexpr std::size_t before = alignof(std::max_align_t) > 2 * sizeof(std::size_t)
                                         ? alignof(std::max_align_t) - 2 * sizeof(std::size_t)
                                         : 0;
      const std::size_t head[] = {before, (size - before) | 2};
      std::memcpy(block + before, head, sizeof head);
      return block;
    };
    char* small = block_of(128 * 1024);
    std::memset(small + 16, 1, 128 * 1024 - 16);
    char* medium = block_of(512 * 1024);
    std::memset(medium + 16, 1, 512 * 1024 - 16);
    char* large = block_of(200 * mb);
    std::memset(large + mb, 1, mb);
    if (!frozen_whole()) return 1;
    if (is_frozen(small) || !is_frozen(medium)) return 2;
    return is_frozen(large + mb) && !is_frozen(large + 3 * mb) ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

// ---- contents, and later use by malloc ----

BOOST_AUTO_TEST_CASE(contents_stay_and_the_process_can_still_allocate) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    std::map<int, std::string> map;
    for (int i = 0; i < 50000; ++i) map[i] = "value " + std::to_string(i);
    char* block = filled(100 * mb);
    std::vector<char*> small;
    for (int i = 0; i < 1000; ++i) small.push_back(filled(1000));
    if (!frozen_whole() || !is_frozen(block) || !is_frozen(&map.begin()->second)) return 1;
    for (int i = 0; i < 50000; ++i)
      if (map.at(i) != "value " + std::to_string(i)) return 2;
    if (!is_filled(block, 100 * mb)) return 3;
    for (int i = 0; i < 50000; i += 2) map.erase(i);
    for (int i = 50000; i < 100000; ++i) map[i] = "new " + std::to_string(i);
    for (char*& each : small) each = static_cast<char*>(std::realloc(each, 3000));
    for (char* each : small)
      if (!is_filled(each, 1000)) return 4;
    for (char* each : small) std::free(each);
    std::free(block);
    ::malloc_trim(0);
    std::vector<char*> fresh;
    for (int i = 0; i < 200; ++i) {
      auto* zeros = static_cast<char*>(std::calloc(1, 40000));
      if (std::accumulate(zeros, zeros + 40000, 0) != 0) return 5;
      fresh.push_back(fill(zeros, 40000));
    }
    if (map.size() != 75000 || map.at(70000) != "new 70000" || map.at(1) != "value 1") return 6;
    return 0;
  });
  BOOST_TEST(status == 0);
}

// mremap(2) enlarges a mapping of a file: an access beyond the end of the file would raise SIGBUS.
BOOST_AUTO_TEST_CASE(a_large_block_can_grow) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* block = filled(4 * mb);
    if (!frozen_whole() || !is_frozen(block + mb)) return 1;
    block = static_cast<char*>(std::realloc(block, 64 * mb));
    if (!is_filled(block, 4 * mb)) return 2;
    std::memset(block + 4 * mb, 9, 60 * mb);
    return block[64 * mb - 1] == 9 && is_filled(block, 4 * mb) ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(named_memory_that_grows_is_filled_with_zeros) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* one = fill(map_pages(2 * mb), 2 * mb);
    char* other = fill(map_pages(2 * mb), 2 * mb);
    par::freezable(one, 2 * mb);
    par::freezable(other, 2 * mb);
    if (!frozen_whole() || !is_frozen(one) || !is_frozen(other)) return 1;
    for (char* block : {one, other}) {
      void* moved = ::mremap(block, 2 * mb, 8 * mb, MREMAP_MAYMOVE);
      if (moved == MAP_FAILED) return 2;
      const char* now = static_cast<char*>(moved);
      if (!is_filled(now, 2 * mb)) return 3;
      for (std::size_t i = 2 * mb; i < 8 * mb; ++i)
        if (now[i] != 0) return 4;
    }
    return 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(copies_of_the_process_do_not_see_each_other) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* block = filled(8 * mb);
    if (!frozen_whole() || !is_frozen(block)) return 1;
    const auto writes = [&](char with) {
      return in_fork([&] {
        if (!is_filled(block, 8 * mb)) return false;
        std::memset(block, with, 8 * mb);
        return block[5 * mb] == with;
      });
    };
    if (writes(1) != 0 || writes(2) != 0) return 2;
    return is_filled(block, 8 * mb) ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

// ---- documented changes ----

BOOST_AUTO_TEST_CASE(discarded_memory_returns_with_its_frozen_contents) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* block = fill(map_pages(mb), mb);
    par::freezable(block, mb);
    if (!frozen_whole()) return 1;
    std::memset(block, 0, mb);
    if (::madvise(block, mb, MADV_DONTNEED) != 0 || !is_filled(block, mb)) return 2;
    if (::madvise(block, mb, MADV_FREE) == 0 || errno != EINVAL) return 3;
    return 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(memory_that_is_wiped_on_fork_is_still_wiped) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* secret = fill(map_pages(mb), mb);
    par::freezable(secret, mb);
    char* block = filled(2 * mb);
    if (::madvise(secret, mb, MADV_WIPEONFORK) != 0) return 1;
    if (!frozen_whole() || !is_frozen(block) || is_frozen(secret)) return 2;
    if (!is_filled(secret, mb)) return 3;
    return in_fork([&] { return std::accumulate(secret, secret + mb, 0) == 0; }) == 0 ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(huge_pages_are_frozen_like_others_and_their_advice_stays) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    void* memory = nullptr;
    if (::posix_memalign(&memory, 2 * mb, 80 * mb) != 0) return 1;
    char* block = static_cast<char*>(memory);
    if (::madvise(block, 80 * mb, MADV_HUGEPAGE) != 0) return 2;
    fill(block, 80 * mb);
    char* other = fill(map_pages(mb), mb);
    ::madvise(other, mb, MADV_NOHUGEPAGE);
    par::freezable(other, mb);
    if (!frozen_whole() || !is_frozen(block + 40 * mb) || !is_frozen(other)) return 3;
    if (!is_filled(block, 80 * mb) || !is_filled(other, mb)) return 4;
    if (mapping_of(block + 40 * mb, true).find(" hg") == std::string::npos) return 5;
    if (mapping_of(other, true).find(" nh") == std::string::npos) return 6;
    return 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(cores_contain_frozen_memory_if_they_contain_private_memory) {
  if (testing::skipped_unfrozen()) return;
  const auto filter_after = [](const char* before) {
    return elsewhere([&] {
      std::ofstream("/proc/self/coredump_filter") << before;
      if (!frozen_whole()) return 99;
      int filter = 0;
      std::ifstream("/proc/self/coredump_filter") >> std::hex >> filter;
      return filter;
    });
  };
  BOOST_TEST(filter_after("0x33") == 0x37);
  BOOST_TEST(filter_after("0x30") == 0x30);
}

// ---- the thread that freezes ----

// The memory that the copying code uses is written while it is copied.
BOOST_AUTO_TEST_CASE(a_stack_in_memory_of_malloc_is_left_out) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    constexpr std::size_t size = 8 * mb;
    static char* stack;
    static bool good;
    static ucontext_t here;
    static ucontext_t there;
    stack = filled(size);
    ::getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = size;
    there.uc_link = &here;
    ::makecontext(
        &there,
        [] {
          int local = 7;
          volatile int* watched = &local;
          good = frozen_whole() && is_frozen(stack + mb) && !is_frozen(&local) && *watched == 7;
        },
        0);
    ::swapcontext(&here, &there);
    return good && is_filled(stack, mb) ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

// ---- peak memory ----

namespace {

std::size_t private_memory() {
  std::ifstream status("/proc/self/status");
  std::size_t kilobytes = 0;
  for (std::string word; status >> word;)
    if (word == "RssAnon:") status >> kilobytes;
  return kilobytes * 1024;
}

// The size of the file that is being written; 0: there is none.
std::size_t size_of_file() {
  std::size_t size = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  while (const dirent* entry = ::readdir(directory)) {
    char target[100] = {};
    const std::string path = std::string("/proc/self/fd/") + entry->d_name;
    struct stat file {};
    if (::readlink(path.c_str(), target, sizeof target - 1) > 0 &&
        std::strstr(target, "evparallel frozen") && ::stat(path.c_str(), &file) == 0)
      size = static_cast<std::size_t>(file.st_blocks) * 512;
  }
  ::closedir(directory);
  return size;
}

struct Peak {
  std::size_t before = 0;
  mutable std::size_t most = 0;
  mutable std::size_t largest_file = 0;
  mutable int pieces = 0;
};

bool look_at_memory(const void* argument) {
  const Peak& peak = *static_cast<const Peak*>(argument);
  peak.most = std::max(peak.most, private_memory() + size_of_file());
  peak.largest_file = std::max(peak.largest_file, size_of_file());
  ++peak.pieces;
  return true;
}

}  // namespace

// Before each piece, memory use is not higher than at first: copied memory is given back.
BOOST_AUTO_TEST_CASE(no_more_than_one_piece_exists_twice) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* block = filled(300 * mb);
    static Peak peak;
    peak.before = private_memory();
    const par::FreezeOutcome outcome = par::freeze(look_at_memory, &peak);
    if (outcome.failed_at != FreezeStep::none || outcome.bytes < 300 * mb) return 1;
    if (peak.pieces < 5 || peak.largest_file < 200 * mb) return 2;
    if (peak.most > peak.before + 4 * mb) return 3;
    return is_filled(block, 300 * mb) ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(untouched_memory_takes_no_memory) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* block = static_cast<char*>(std::malloc(400 * mb));
    std::memset(block, 1, mb);
    std::memset(block + 399 * mb, 2, mb);
    static Peak peak;
    if (par::freeze(look_at_memory, &peak).failed_at != FreezeStep::none) return 1;
    if (!is_frozen(block + 200 * mb) || peak.largest_file > 8 * mb) return 2;
    return block[10] == 1 && block[200 * mb] == 0 && block[400 * mb - 1] == 2 ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

// ---- failures ----

namespace {

// There are at least three pieces, and one of them fails; afterwards everything works unchanged.
int fails(std::uint64_t piece, int error, FreezeStep step) {
  return elsewhere([&] {
    char* block = filled(150 * mb);
    failpoints::Fault fault;
    fault.action = failpoints::Action::fail;
    fault.failpoint = step == FreezeStep::copy ? Failpoint::freeze_copy : Failpoint::freeze_map;
    fault.hit = piece;
    fault.error = error;
    failpoints::load(fault);
    const par::FreezeOutcome outcome = freeze();
    par::fault::disarm();
    if (outcome.failed_at != step || outcome.error != error) return 1;
    if (!is_filled(block, 150 * mb)) return 2;
    block = static_cast<char*>(std::realloc(block, 160 * mb));
    std::memset(block + 150 * mb, 1, 10 * mb);
    if (!is_filled(block, 150 * mb)) return 3;
    if (in_fork([&] { return is_filled(block, 150 * mb); }) != 0) return 4;
    std::free(block);
    return is_filled(filled(mb), mb) && par::error_of(outcome).os_error() == error ? 0 : 5;
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_lack_of_room_for_a_copy_leaves_memory_unchanged) {
  if (testing::skipped_unfrozen()) return;
  for (std::uint64_t piece = 1; piece <= 3; ++piece)
    BOOST_TEST(fails(piece, ENOSPC, FreezeStep::copy) == 0);
}

BOOST_AUTO_TEST_CASE(a_copy_that_cannot_be_mapped_leaves_memory_unchanged) {
  if (testing::skipped_unfrozen()) return;
  for (std::uint64_t piece = 1; piece <= 3; ++piece)
    BOOST_TEST(fails(piece, ENOMEM, FreezeStep::map) == 0);
}

BOOST_AUTO_TEST_CASE(exceeding_the_file_size_limit_is_an_error_without_a_signal) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* block = filled(8 * mb);
    const rlimit limit{mb, mb};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const par::FreezeOutcome outcome = freeze();
    if (outcome.failed_at != FreezeStep::copy || outcome.error != EFBIG) return 1;
    if (std::string(par::error_of(outcome).what()).find("RLIMIT_FSIZE") == std::string::npos)
      return 2;
    struct sigaction now {};
    ::sigaction(SIGXFSZ, nullptr, &now);
    return now.sa_handler == SIG_DFL && is_filled(block, 8 * mb) ? 0 : 3;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_lack_of_descriptors_is_an_error) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* block = filled(8 * mb);
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_NOFILE, &none);
    const par::FreezeOutcome outcome = freeze();
    return outcome.failed_at == FreezeStep::look && outcome.error == EMFILE && !is_filled(block, 1)
               ? 1
               : 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(freezing_stops_when_the_callback_says_so) {
  if (testing::skipped_unfrozen()) return;
  const int status = elsewhere([] {
    char* block = filled(100 * mb);
    static int asked;
    const par::FreezeOutcome outcome =
        par::freeze([](const void*) { return ++asked < 2; }, nullptr);
    return outcome.failed_at == FreezeStep::end && asked == 2 && is_filled(block, 100 * mb) ? 0 : 1;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(an_emulator_a_sanitizer_or_a_missing_memfd_create_prevents_freezing) {
  const std::optional<par::Error> why = par::why_not_frozen();
  BOOST_TEST(why.has_value() == (testing::no_memfd() || testing::sanitized || testing::emulated()));
  if (!why) return;
  BOOST_TEST((why->code() == par::Errc::refused));
  const char* const expected = testing::emulated()  ? "qemu-user"
                               : testing::sanitized ? "AddressSanitizer"
                                                    : "memfd_create";
  BOOST_TEST(std::string(why->what()).find(expected) != std::string::npos);
}
