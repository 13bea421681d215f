// freezable_regions.cpp - reads /proc/self/smaps, and finds malloc's memory by malloc's own marks.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/freezable_regions.hpp"

#include "base/retry_eintr.hpp"
#include "system/descriptor.hpp"
#include "system/new_descriptor.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace evparallel::detail {

namespace {

const auto page = static_cast<std::size_t>(::getpagesize());
constexpr bool is_wide = sizeof(void*) > 4;
constexpr std::size_t least = 256 * 1024;
constexpr std::size_t most_regions = 1 << 17;  // the kernel allows 65530 mappings
constexpr std::size_t answers = 1 << 15;

// Filled by the program before it takes a snapshot; never destroyed.
std::vector<Region>& named_regions() {
  static auto* all = new std::vector<Region>;
  return *all;
}

std::uintptr_t down(std::uintptr_t address) noexcept {
  return address & ~(page - 1);
}
std::uintptr_t up(std::uintptr_t address) noexcept {
  return down(address + page - 1);
}

bool starts_with(const char* text, std::string_view what) noexcept {
  return std::strncmp(text, what.data(), what.size()) == 0;
}

// ---- the marks of glibc's malloc ----

std::uintptr_t word_at(std::uintptr_t address) noexcept {
  std::uintptr_t word;
  std::memcpy(&word, reinterpret_cast<const void*>(address), sizeof word);
  return word;
}

// Where two words are less than malloc's alignment, as on i386, the head of a block is not at the
// beginning of its mapping.  Its first word says how far behind it is.
constexpr std::size_t head_size = 2 * sizeof(std::uintptr_t);
constexpr std::size_t before_head =
    head_size < alignof(std::max_align_t) ? alignof(std::max_align_t) - head_size : 0;

// A block with a mapping of its own has a head with the distance to the beginning, and its size.
// Both together are whole pages, and one of the low bits says that the block is mapped.  0: there
// is none.
std::size_t chunk_at(std::uintptr_t at) noexcept {
  constexpr std::uintptr_t low_bits = 7;
  constexpr std::uintptr_t is_mapped = 2;
  const std::uintptr_t head = at + before_head;
  const std::uintptr_t size = word_at(head + sizeof(std::uintptr_t));
  if (word_at(head) != before_head || (size & low_bits) != is_mapped) return 0;
  constexpr std::size_t most = SIZE_MAX >> (is_wide ? 18 : 1);
  const std::size_t bytes = (size & ~low_bits) + before_head;
  return bytes >= page && bytes % page == 0 && bytes <= most ? bytes : 0;
}

// The heap of an arena other than the main one begins at a multiple of 64 MB, or of 1 MB where a
// pointer has 32 bits, with four words: its arena, the previous heap, its size, and the largest size
// that was ever in use.  The arena stands in its first heap, right behind these words.
constexpr std::uintptr_t arena_heap = std::uintptr_t{is_wide ? 64 : 1} << 20;
std::size_t arena_heap_at(std::uintptr_t at, std::uintptr_t to) noexcept {
  if (at % arena_heap != 0) return 0;
  constexpr std::size_t longest_head = 256;
  const std::uintptr_t arena = word_at(at);
  const std::uintptr_t before = word_at(at + sizeof(std::uintptr_t));
  const std::size_t size = word_at(at + 2 * sizeof(std::uintptr_t));
  const std::size_t used = word_at(at + 3 * sizeof(std::uintptr_t));
  const bool is_first = before == 0 && arena > at && arena - at <= longest_head;
  const bool is_further = before != 0 && before % arena_heap == 0 && arena != 0;
  if (!is_first && !is_further) return 0;
  const bool fits = size >= page && size <= used && used % page == 0 && used <= arena_heap;
  return fits ? std::min<std::size_t>(used, to - at) : 0;
}

// ---- memory that is written during the search and the freeze ----

struct Busy {
  Region windows[2 + register_blocks];
};

Busy busy() noexcept {
  constexpr std::uintptr_t around = 64 * 1024;
  const auto stack = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const auto self = static_cast<std::uintptr_t>(::pthread_self());
  const auto error = reinterpret_cast<std::uintptr_t>(&errno);
  Busy all;
  const auto set = [&all](std::size_t i, std::uintptr_t begin, std::uintptr_t end) {
    all.windows[i].from = down(begin);
    all.windows[i].to = up(end);
  };
  set(0, stack - 4 * around, stack + around);
  set(1, std::min(self, error), std::max(self, error) + page);
  for (std::size_t block = 0; block < register_blocks; ++block) {
    const RegisterMemory numbers = register_memory(block);
    const auto from = reinterpret_cast<std::uintptr_t>(numbers.from);
    set(2 + block, from, from + numbers.size);
  }
  std::sort(std::begin(all.windows), std::end(all.windows),
            [](const Region& a, const Region& b) { return a.from < b.from; });
  return all;
}

}  // namespace

void name_region(const void* from, std::size_t size) {
  Region region;
  region.from = up(reinterpret_cast<std::uintptr_t>(from));
  region.to = down(reinterpret_cast<std::uintptr_t>(from) + size);
  region.named = true;
  if (region.from < region.to) named_regions().push_back(region);
}

// ---- touched pages ----

ResidentPages::~ResidentPages() {
  if (fd_ >= 0) ::close(fd_);
}

int ResidentPages::open(std::uint64_t* room, std::size_t count) noexcept {
  room_ = room;
  count_ = count;
  fd_ = open_file("/proc/self/pagemap", O_RDONLY);
  return fd_ < 0 ? errno : 0;
}

// A page about which the kernel gives no answer counts as touched.
bool ResidentPages::at(std::uintptr_t address) noexcept {
  const std::uintptr_t number = address / page;
  if (number < first_ || number >= last_) {
    const auto offset = static_cast<off_t>(number * sizeof *room_);
    const ssize_t got =
        retry_on_eintr([&] { return ::pread(fd_, room_, count_ * sizeof *room_, offset); });
    first_ = number;
    last_ = number + (got > 0 ? static_cast<std::size_t>(got) / sizeof *room_ : 0);
    if (first_ == last_) return true;
  }
  constexpr std::uint64_t present_or_swapped = std::uint64_t{3} << 62;
  return (room_[number - first_] & present_or_swapped) != 0;
}

std::uintptr_t ResidentPages::next(std::uintptr_t from, std::uintptr_t to) noexcept {
  while (from < to && !at(from)) from += page;
  return from;
}

std::uintptr_t ResidentPages::end(std::uintptr_t from, std::uintptr_t to) noexcept {
  while (from < to && at(from)) from += page;
  return from;
}

// ---- the search ----

struct Regions::Text {
  int fd;
  std::size_t at;
  std::size_t have;
  char bytes[64 * 1024];
  char line[8 * 1024];  // longer lines are cut

  // False: there is no further line.
  bool next() noexcept {
    std::size_t length = 0;
    for (;;) {
      if (at == have) {
        const ssize_t got = retry_on_eintr([&] { return ::read(fd, bytes, sizeof bytes); });
        if (got <= 0) return false;
        at = 0;
        have = static_cast<std::size_t>(got);
      }
      const char c = bytes[at++];
      if (c == '\n') break;
      if (length + 1 < sizeof line) line[length++] = c;
    }
    line[length] = '\0';
    return true;
  }
};

struct Regions::Table {
  std::uint64_t answers[detail::answers];
  Text text;
  std::uintptr_t last_to;      // end of the previous mapping
  std::uintptr_t chunk_until;  // end of the last chunk
  std::size_t count;
  std::size_t kept;
  Region found[most_regions];
  Region regions[most_regions];
};

struct Regions::Mapping {
  std::uintptr_t from = 0;
  std::uintptr_t to = 0;
  bool anonymous = false;
  bool heap = false;
  bool allowed = false;
  Region like{};  // the properties of all regions in it
};

Regions::~Regions() {
  if (table_) ::munmap(table_, sizeof *table_);
}

const Region* Regions::begin() const noexcept {
  return table_ ? table_->regions : nullptr;
}
const Region* Regions::end() const noexcept {
  return table_ ? table_->regions + table_->kept : nullptr;
}

int Regions::look() noexcept {
  void* memory = ::mmap(nullptr, sizeof(Table), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return errno;
  table_ = static_cast<Table*>(memory);  // zeroed; allocated as it is touched
  if (const int error = touched_.open(table_->answers, detail::answers)) return error;
  Text& text = table_->text;
  text.fd = open_file("/proc/self/smaps", O_RDONLY);
  if (text.fd < 0) return errno;
  Mapping mapping;
  while (text.next()) {
    if (starts_with(text.line, "VmFlags:")) {
      take_flags(mapping, text.line);
      take(mapping);
    } else if (text.line[0] < 'A' || text.line[0] > 'Z') {
      take_header(mapping, text.line);
    }
  }
  ::close(text.fd);
  merge();
  leave_out_busy();
  return 0;
}

// "55d0-55f1 rw-p 00000000 00:00 0      [heap]"
void Regions::take_header(Mapping& mapping, const char* line) noexcept {
  mapping = Mapping{};
  char* at = nullptr;
  mapping.from = static_cast<std::uintptr_t>(std::strtoull(line, &at, 16));
  mapping.to = static_cast<std::uintptr_t>(std::strtoull(at + (*at == '-'), &at, 16));
  const bool is_private = starts_with(at, " rw-p ");
  std::strtoull(at + (is_private ? 6 : 0), &at, 16);  // the offset
  at += std::strcspn(at + (*at == ' '), " ") + 1;     // the device
  const bool no_file = std::strtoull(at, &at, 10) == 0;
  const char* name = at + std::strspn(at, " ");
  mapping.heap = starts_with(name, "[heap]");
  mapping.anonymous =
      is_private && no_file && (*name == '\0' || mapping.heap || starts_with(name, "[anon:"));
}

// With a flag that is not in this list, a copy may not be equivalent.
void Regions::take_flags(Mapping& mapping, const char* line) noexcept {
  constexpr std::string_view allowed[] = {"rd", "wr", "mr", "mw", "me",
                                          "ac", "sd", "hg", "nh", "nr"};
  bool readable = false;
  bool writable = false;
  mapping.allowed = true;
  for (const char* at = line + sizeof "VmFlags:"; *at != '\0';) {
    const std::string_view flag(at, std::min<std::size_t>(2, std::strlen(at)));
    if (std::find(std::begin(allowed), std::end(allowed), flag) == std::end(allowed))
      mapping.allowed = false;
    readable = readable || flag == "rd";
    writable = writable || flag == "wr";
    if (flag == "nr") mapping.like.unreserved = true;
    if (flag == "hg") mapping.like.advice = MADV_HUGEPAGE;
    if (flag == "nh") mapping.like.advice = MADV_NOHUGEPAGE;
    at += flag.size();
    at += std::strspn(at, " ");
  }
  mapping.allowed = mapping.allowed && readable && writable;
}

void Regions::take(const Mapping& mapping) noexcept {
  if (std::exchange(table_->last_to, mapping.to) != mapping.from) table_->chunk_until = 0;
  if (!mapping.anonymous || !mapping.allowed) return;
  if (mapping.heap)
    add(mapping, mapping.from, mapping.to, false);
  else
    take_chunks(mapping);
  take_named(mapping);
}

// The kernel merges neighbouring mappings of different owners into one.  It also splits a block
// into several mappings if a part of it is treated differently, by madvise(2) for example.
void Regions::take_chunks(const Mapping& mapping) noexcept {
  std::uintptr_t at = std::clamp(table_->chunk_until, mapping.from, mapping.to);
  add(mapping, mapping.from, at, false);
  while (at < mapping.to) {
    at = touched_.next(at, mapping.to);
    if (at == mapping.to) return;
    if (const std::size_t size = chunk_at(at)) {
      table_->chunk_until = at + size;
      const std::uintptr_t end = std::min(at + size, mapping.to);
      add(mapping, at, end, false);
      at = end;
    } else if (const std::size_t heap = arena_heap_at(at, mapping.to)) {
      add(mapping, at + page, at + heap, false);  // without the arena itself, which fork locks
      at += heap;
    } else {
      at += page;
    }
  }
}

void Regions::take_named(const Mapping& mapping) noexcept {
  for (const Region& named : named_regions())
    add(mapping, std::max(named.from, mapping.from), std::min(named.to, mapping.to), true);
}

void Regions::add(const Mapping& mapping, std::uintptr_t from, std::uintptr_t to,
                  bool named) noexcept {
  if (from >= to) return;
  Region* const last = table_->count > 0 ? table_->found + table_->count - 1 : nullptr;
  if (last && last->to == from && from > mapping.from && !named && !last->named) {
    last->to = to;
    return;
  }
  if (table_->count == most_regions) return;
  Region& region = table_->found[table_->count++];
  region = mapping.like;
  region.from = from;
  region.to = to;
  region.named = named;
}

// A named region may overlap a found region or another named one.
void Regions::merge() noexcept {
  Region* const found = table_->found;
  std::sort(found, found + table_->count,
            [](const Region& a, const Region& b) { return a.from < b.from; });
  std::size_t last = 0;
  for (std::size_t i = 1; i < table_->count; ++i) {
    if (found[i].from >= found[last].to) {
      found[++last] = found[i];
      continue;
    }
    found[last].to = std::max(found[last].to, found[i].to);
    found[last].named = found[last].named || found[i].named;
  }
  if (table_->count > 0) table_->count = last + 1;
}

void Regions::leave_out_busy() noexcept {
  const Busy all = busy();
  for (std::size_t i = 0; i < table_->count; ++i) {
    Region rest = table_->found[i];
    for (const Region& window : all.windows) {
      if (window.to <= rest.from || window.from >= rest.to) continue;
      Region before = rest;
      before.to = std::max(window.from, rest.from);
      keep(before);
      rest.from = std::min(window.to, rest.to);
    }
    keep(rest);
  }
}

// Untouched pages are dropped at both ends: a region that grows has fresh pages behind its end, and
// those at its beginning hold nothing.
void Regions::keep(Region region) noexcept {
  region.from = touched_.next(region.from, region.to);
  while (region.to > region.from && !touched_.at(region.to - page)) region.to -= page;
  if (region.size() < (region.named ? page : least) || table_->kept == most_regions) return;
  table_->regions[table_->kept++] = region;
}

}  // namespace evparallel::detail
