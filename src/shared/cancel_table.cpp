// cancel_table.cpp - the table of deadlines and cancelled calls.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "shared/cancel_table.hpp"

#include "base/startup_path.hpp"
#include "system/fork.hpp"
#include "system/shared_memory.hpp"

#include <unistd.h>

#include <algorithm>

namespace evparallel::detail {

namespace {

constexpr std::uint64_t being_written = 1;

}  // namespace

CancelTable* CancelTable::map() noexcept {
  return static_cast<CancelTable*>(map_shared(sizeof(CancelTable)));
}

void CancelTable::unmap(CancelTable* table) noexcept {
  unmap_shared(table, sizeof(CancelTable));
}

// A pid has at most 22 bits; a process that gets the same pid later starts at another time.
std::uint64_t CancelTable::new_owner() noexcept {
  static OwnerProcess of_process{};
  static std::uint64_t next = 0;
  if (!of_process.is_here()) {
    of_process = OwnerProcess::here();
    next = static_cast<std::uint64_t>(now_ns()) >> 10;
  }
  return static_cast<std::uint64_t>(of_process.pid) << 42 |
         (next++ & ((std::uint64_t{1} << 42) - 1));
}

std::size_t CancelTable::first_place(std::uint64_t owner, std::uint64_t call) noexcept {
  std::uint64_t mixed = (owner * 0x9e3779b97f4a7c15U) ^ (call * 0xd6e8feb86659fd93U);
  mixed ^= mixed >> 32;
  return static_cast<std::size_t>(mixed % entry_count);
}

CancelEntry* CancelTable::write(std::uint64_t owner, std::uint64_t call,
                                std::int64_t deadline) noexcept {
  const std::size_t first = first_place(owner, call);
  for (std::size_t i = 0; i < reach; ++i) {
    CancelEntry& entry = entries_[(first + i) % entry_count];
    std::uint64_t nobody = 0;
    if (entry.owner.load(std::memory_order_relaxed) != 0 ||
        !entry.owner.compare_exchange_strong(nobody, being_written))
      continue;
    entry.call.store(call, std::memory_order_relaxed);
    entry.deadline.store(deadline, std::memory_order_relaxed);
    ++count_;
    entry.owner.store(owner);
    return &entry;
  }
  return nullptr;
}

void CancelTable::erase(CancelEntry* entry) noexcept {
  entry->owner.store(0);
  --count_;
}

std::int64_t CancelTable::look_up(std::uint64_t owner, std::uint64_t call) const noexcept {
  const std::size_t first = first_place(owner, call);
  for (std::size_t i = 0; i < reach; ++i) {
    const CancelEntry& entry = entries_[(first + i) % entry_count];
    if (entry.owner.load() == owner && entry.call.load(std::memory_order_relaxed) == call)
      return entry.deadline.load();
  }
  return no_deadline;
}

}  // namespace evparallel::detail
