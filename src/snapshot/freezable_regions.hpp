// freezable_regions.hpp - the memory of this process that can be frozen.
// Runs in: snapshot.  Licence: see COPYING.
//
// The kernel and the marks of the C library's allocator say what that is.  The search must not
// change the memory that it examines: it writes only to one shared mapping, which is no candidate
// and lies in none.
#pragma once

#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

// Whole pages of one mapping.
struct Region {
  std::uintptr_t from = 0;
  std::uintptr_t to = 0;
  bool named = false;       // by freezable(): taken at any size
  bool unreserved = false;  // MAP_NORESERVE
  int advice = 0;           // of madvise(2), about huge pages; 0: none

  std::size_t size() const noexcept { return to - from; }
};

// Records a region for freezable().
void name_region(const void* from, std::size_t size);

// The pages of this process that were touched and are in memory now, or are swapped out.
class ResidentPages {
public:
  ResidentPages() noexcept = default;
  ResidentPages(const ResidentPages&) = delete;
  ResidentPages& operator=(const ResidentPages&) = delete;
  ~ResidentPages();

  // Returns 0 or an errno.  Caches the kernel's answers in `room`.
  int open(std::uint64_t* room, std::size_t count) noexcept;
  bool at(std::uintptr_t page) noexcept;
  // next() finds the first touched page from `from` on, end() the first one that is not touched.
  // Both return `to` if there is none.
  std::uintptr_t next(std::uintptr_t from, std::uintptr_t to) noexcept;
  std::uintptr_t end(std::uintptr_t from, std::uintptr_t to) noexcept;

private:
  int fd_ = -1;
  std::uint64_t* room_ = nullptr;
  std::size_t count_ = 0;
  std::uintptr_t first_ = 1;  // number of the first page whose answer is cached
  std::uintptr_t last_ = 0;   // number of the page behind the last one
};

// The heap, the mappings of malloc, and the named regions, each of at least 256 kB unless it was
// named.  Left out are: mappings that are not plain private memory (by their VmFlags), the
// untouched pages at both ends of a region, the calling thread's stack and thread control block,
// and the register of descriptors.
class Regions {
public:
  Regions() noexcept = default;
  Regions(const Regions&) = delete;
  Regions& operator=(const Regions&) = delete;
  ~Regions();

  // Returns 0 or an errno.  Call it once.
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

}  // namespace evparallel::detail
