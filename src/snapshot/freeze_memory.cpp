// freeze_memory.cpp - copies regions into files in memory, and maps the files in their place.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/freeze_memory.hpp"

#include "base/retry_eintr.hpp"
#include "system/emulation.hpp"
#include "system/failpoint.hpp"
#include "system/new_descriptor.hpp"
#include "snapshot/freezable_regions.hpp"

#include <evparallel/freeze.hpp>

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

// Weak: a symbol is defined only if the program has that sanitizer or that allocator, or runs under
// valgrind.
#define EVPARALLEL_IF_THERE(name) \
  extern "C" __attribute__((weak, visibility("default"))) void name()
EVPARALLEL_IF_THERE(__asan_init);
EVPARALLEL_IF_THERE(__hwasan_init);
EVPARALLEL_IF_THERE(__lsan_init);
EVPARALLEL_IF_THERE(__msan_init);
EVPARALLEL_IF_THERE(__tsan_init);
EVPARALLEL_IF_THERE(_vgnU_freeres);
EVPARALLEL_IF_THERE(mallctl);
EVPARALLEL_IF_THERE(mi_version);
EVPARALLEL_IF_THERE(tc_version);
#undef EVPARALLEL_IF_THERE

namespace evparallel {

void freezable(const void* from, std::size_t size) {
  const auto address = reinterpret_cast<std::uintptr_t>(from);
  if (address + size < address || (!from && size > 0))
    throw std::logic_error(
        "evparallel: freezable() needs a range of memory: this one begins at null or wraps around");
  detail::name_region(from, size);
}

namespace detail {

namespace {

constexpr std::size_t piece_size = std::size_t{64} << 20;
// Large enough that a region that grows by mremap(2), as realloc makes it, stays within the file
// and finds zeros there.
constexpr off_t file_size = off_t{1} << (sizeof(void*) > 4 ? 46 : 32);

// ---- what prevents a freeze ----

const char* name_of_sanitizer() noexcept {
  if (__asan_init) return "AddressSanitizer";
  if (__hwasan_init) return "HWAddressSanitizer";
  if (__lsan_init) return "LeakSanitizer";
  if (__msan_init) return "MemorySanitizer";
  return __tsan_init ? "ThreadSanitizer" : nullptr;
}

const char* name_of_allocator() noexcept {
  if (mallctl) return "jemalloc";
  if (mi_version) return "mimalloc";
  return tc_version ? "tcmalloc" : nullptr;
}

// glibc counts the memory that it allocates, so memory that it has not counted is from another
// allocator.
bool glibc_gives_memory() noexcept {
  constexpr std::size_t size = 50000;
  const auto in_use = [] {
    const struct mallinfo2 info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const std::size_t before = in_use();
  void* volatile memory = std::malloc(size);
  const std::size_t after = in_use();
  std::free(memory);
  return !memory || after >= before + size;
}

constexpr const char* memory_name = "evparallel frozen";

constexpr const char* or_do_not_freeze = "set SnapshotOptions::freeze to false";

// `cure`: what else helps, followed by ", or "; may be empty.
Error refused(const std::string& why, const std::string& cure = "") {
  return Error(Errc::refused,
               "refused: this program cannot be frozen: " + why + ": " + cure + or_do_not_freeze);
}

}  // namespace

std::optional<Error> why_not_frozen() {
  if (_vgnU_freeres) return refused("it runs under valgrind", "run it without valgrind, or ");
  // The addresses of the program are not those of the kernel, which lists its pages.
  if (is_emulated())
    return refused("it runs under qemu-user", "run it on a processor of its kind, or ");
  if (const char* name = name_of_sanitizer())
    return refused(std::string("it runs with ") + name, "build it without a sanitizer, or ");
  if (const char* name = name_of_allocator())
    return refused(std::string("it uses ") + name + " instead of glibc's malloc",
                   std::string("link it without ") + name + ", or ");
  if (!glibc_gives_memory())
    return refused("it uses another allocator instead of glibc's malloc",
                   "link it without that allocator, or ");
  const int memory = open_memory_file(memory_name);
  if (memory < 0 && errno == ENOSYS)
    return refused("memfd_create is not available",
                   "permit it where the system calls are filtered, or ");
  if (memory >= 0) ::close(memory);  // freeze() reports other failures
  return std::nullopt;
}

namespace {

// ---- one region ----

struct Piece {
  const Region& region;
  int file;
  std::uintptr_t from;
  std::uintptr_t to;

  off_t offset(std::uintptr_t address) const noexcept {
    return static_cast<off_t>(address - region.from);
  }
};

// A sparse file takes room only where it is written.
int copy_run(const Piece& piece, std::uintptr_t from, std::uintptr_t to) noexcept {
  while (from < to) {
    const ssize_t put = retry_on_eintr([&] {
      return ::pwrite(piece.file, reinterpret_cast<const void*>(from), to - from,
                      piece.offset(from));
    });
    if (put <= 0) return put < 0 ? errno : ENOSPC;
    from += static_cast<std::uintptr_t>(put);
  }
  return 0;
}

int copy(const Piece& piece, ResidentPages& touched) noexcept {
  for (std::uintptr_t at = piece.from; at < piece.to;) {
    const std::uintptr_t from = touched.next(at, piece.to);
    at = touched.end(from, piece.to);
    if (const int error = copy_run(piece, from, at)) return error;
  }
  return 0;
}

void* map_over(const Piece& piece, int flags, int file) noexcept {
  flags |= MAP_PRIVATE | MAP_FIXED | (piece.region.unreserved ? MAP_NORESERVE : 0);
  return ::mmap(reinterpret_cast<void*>(piece.from), piece.to - piece.from, PROT_READ | PROT_WRITE,
                flags, file, file < 0 ? 0 : piece.offset(piece.from));
}

// The kernel may have removed the old mapping before it found that it could not make the new one.
void put_back(const Piece& piece) noexcept {
  if (map_over(piece, MAP_ANONYMOUS, -1) == MAP_FAILED) std::abort();
  for (std::uintptr_t at = piece.from; at < piece.to;) {
    const ssize_t got = retry_on_eintr([&] {
      return ::pread(piece.file, reinterpret_cast<void*>(at), piece.to - at, piece.offset(at));
    });
    if (got <= 0) std::abort();  // it was written just now
    at += static_cast<std::uintptr_t>(got);
  }
}

int map(const Piece& piece, int fault) noexcept {
  if (fault != 0) ::munmap(reinterpret_cast<void*>(piece.from), piece.to - piece.from);
  if (fault == 0 && map_over(piece, 0, piece.file) != MAP_FAILED) return 0;
  const int error = fault != 0 ? fault : errno;
  put_back(piece);
  return error;
}

// ---- all regions ----

struct Freezer {
  bool (*go_on)(const void*);
  const void* argument;
  ResidentPages& touched;
  FreezeOutcome outcome{};

  bool fail(FreezeStep step, int error) noexcept {
    outcome.failed_at = step;
    outcome.error = error;
    return false;
  }

  bool freeze_piece(const Piece& piece) noexcept {
    // Both before the copy: it would not have what a hook writes after it.
    const int no_room = fault_at(Failpoint::freeze_copy);
    const int no_mapping = fault_at(Failpoint::freeze_map);
    if (!go_on(argument)) return fail(FreezeStep::end, 0);
    if (const int error = no_room != 0 ? no_room : copy(piece, touched))
      return fail(FreezeStep::copy, error);
    if (const int error = map(piece, no_mapping)) return fail(FreezeStep::map, error);
    outcome.bytes += piece.to - piece.from;
    return true;
  }

  // Each region has a file of its own, so that nothing stands behind it in the file.
  bool freeze_region(const Region& region) noexcept {
    const int file = open_memory_file(memory_name);
    if (file < 0) return fail(FreezeStep::memfd, errno);
    bool good = ::ftruncate(file, file_size) == 0 || fail(FreezeStep::copy, errno);
    for (std::uintptr_t from = region.from; good && from < region.to;) {
      // Pieces end at multiples of the size, so that no huge page lies in two of them.
      const std::uintptr_t to = std::min((from / piece_size + 1) * piece_size, region.to);
      good = freeze_piece({region, file, from, to});
      from = to;
    }
    if (good && region.advice != 0)
      ::madvise(reinterpret_cast<void*>(region.from), region.size(), region.advice);
    ::close(file);
    return good;
  }
};

// The frozen memory was private memory without a file.  So a core dump that includes that kind must
// include file mappings, too.
void dump_frozen_memory() noexcept {
  const int fd = open_file("/proc/self/coredump_filter", O_RDWR);
  if (fd < 0) return;
  char text[24] = {};
  constexpr unsigned long anonymous_private = 1;
  constexpr unsigned long mapped_private = 4;
  if (retry_on_eintr([&] { return ::read(fd, text, sizeof text - 1); }) > 0) {
    const unsigned long filter = std::strtoul(text, nullptr, 16);
    if (filter & anonymous_private) {
      const int size = std::snprintf(text, sizeof text, "0x%lx", filter | mapped_private);
      retry_on_eintr([&] { return ::pwrite(fd, text, static_cast<std::size_t>(size), 0); });
    }
  }
  ::close(fd);
}

}  // namespace

FreezeOutcome freeze(bool (*go_on)(const void*), const void* argument) noexcept {
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGXFSZ, &ignore, &before);
  Regions regions;
  Freezer freezer{go_on, argument, regions.touched()};
  bool good = true;
  if (const int error = regions.look()) good = freezer.fail(FreezeStep::look, error);
  if (good) dump_frozen_memory();
  for (const Region& region : regions) good = good && freezer.freeze_region(region);
  ::sigaction(SIGXFSZ, &before, nullptr);
  return freezer.outcome;
}

Error error_of(const FreezeOutcome& outcome, const std::string& how) {
  const auto says = [&](const char* what, const std::string& cure) {
    return Error(Errc::spawn_failed,
                 std::string("spawn failed: the snapshot could not be frozen: ") + what +
                     (outcome.error ? ": " : "") +
                     (outcome.error ? std::strerror(outcome.error) : "") + ": " + cure)
        .with_os_error(outcome.error);
  };
  const std::string or_else = std::string(", or ") + or_do_not_freeze;
  switch (outcome.failed_at) {
    case FreezeStep::look:
      return says("the map of its memory in /proc could not be read", "mount /proc" + or_else);
    case FreezeStep::memfd:
      return says("a file in memory could not be created",
                  "raise the limits of files and of memory" + or_else);
    case FreezeStep::copy:
      if (outcome.error == EFBIG)
        return says("the file size limit (RLIMIT_FSIZE) is smaller than its memory",
                    "raise the limit" + or_else);
      return says("there is no memory for a copy", "free memory" + or_else);
    case FreezeStep::map:
      return says("a copy could not be mapped",
                  "raise the limits of memory and of mappings (vm.max_map_count)" + or_else);
    case FreezeStep::fork:
      return says(
          "a replica could not be forked",
          "raise the limit of processes (RLIMIT_NPROC), or ask for fewer replicas" + or_else);
    case FreezeStep::none:
    case FreezeStep::end: break;
  }
  return says(("it died" + how).c_str(), "try again" + or_else);
}

}  // namespace detail

}  // namespace evparallel
