// freezable_regions.hpp - which memory of this process can be frozen, as the kernel and the C library's
// allocator have it.
// Runs in: snapshot.  Licence: see COPYING.
//
// To look must change nothing of what is looked at: all that it writes is one shared mapping, which
// is no candidate and lies in none.
#pragma once

#include <cstddef>
#include <cstdint>

namespace evparallel {

// Whole pages of one mapping.
struct Region {
  std::uintptr_t from = 0;
  std::uintptr_t to = 0;
  bool named = false;       // by freezable(): however small
  bool unreserved = false;  // MAP_NORESERVE
  int advice = 0;           // of madvise(2), about huge pages; 0: none

  std::size_t size() const noexcept { return to - from; }
};

// By freezable().
void name_region(const void* from, std::size_t size);

// Which pages of this process were ever touched and are memory now, or are swapped out.
class ResidentPages {
public:
  ResidentPages() noexcept = default;
  ResidentPages(const ResidentPages&) = delete;
  ResidentPages& operator=(const ResidentPages&) = delete;
  ~ResidentPages();

  // Returns 0 or an errno.  Keeps its answers in `room`.
  int open(std::uint64_t* room, std::size_t count) noexcept;
  bool at(std::uintptr_t page) noexcept;
  // The first touched page from `from` on, and the first behind it that is not; `to` where there is
  // none.
  std::uintptr_t next(std::uintptr_t from, std::uintptr_t to) noexcept;
  std::uintptr_t end(std::uintptr_t from, std::uintptr_t to) noexcept;

private:
  int fd_ = -1;
  std::uint64_t* room_ = nullptr;
  std::size_t count_ = 0;
  std::uintptr_t first_ = 1;  // of the pages whose answers are there, by number
  std::uintptr_t last_ = 0;   // behind them
};

// The heap, what malloc has mapped, and what was named, of 256 kB at least each unless it was named.
// Left out: what is not plain private memory (by its VmFlags), what was never touched at both ends
// of a region, the calling thread's stack and thread control block, and the register of descriptors.
class Regions {
public:
  Regions() noexcept = default;
  Regions(const Regions&) = delete;
  Regions& operator=(const Regions&) = delete;
  ~Regions();

  // Returns 0 or an errno.  Once.
  int look() noexcept;
  const Region* begin() const noexcept;
  const Region* end() const noexcept;
  ResidentPages& touched() noexcept { return touched_; }

private:
  struct Table;
  struct Mapping;
  struct Text;
  void take_header(Mapping&, const char* line) noexcept;
  void take_flags(Mapping&, const char* line) noexcept;
  void take(const Mapping&) noexcept;
  void take_chunks(const Mapping&) noexcept;
  void take_named(const Mapping&) noexcept;
  void add(const Mapping&, std::uintptr_t from, std::uintptr_t to, bool named) noexcept;
  void merge() noexcept;
  void leave_out_busy() noexcept;
  void keep(Region) noexcept;

  Table* table_ = nullptr;
  ResidentPages touched_;
};

}  // namespace evparallel
