// cancel_table.cpp - the table of deadlines and cancelled calls.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "shared/cancel_table.hpp"

#include "base/startup_path.hpp"
#include "system/fork.hpp"
#include "system/shared_memory.hpp"

#include <unistd.h>

#include <algorithm>

namespace evparallel {

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
  return static_cast<std::size_t>(mixed % note_count);
}

CancelEntry* CancelTable::write(std::uint64_t owner, std::uint64_t call,
                                std::int64_t deadline) noexcept {
  const std::size_t first = first_place(owner, call);
  for (std::size_t i = 0; i < reach; ++i) {
    CancelEntry& note = notes_[(first + i) % note_count];
    std::uint64_t nobody = 0;
    if (note.owner.load(std::memory_order_relaxed) != 0 ||
        !note.owner.compare_exchange_strong(nobody, being_written))
      continue;
    note.call.store(call, std::memory_order_relaxed);
    note.deadline.store(deadline, std::memory_order_relaxed);
    ++count_;
    note.owner.store(owner);
    return &note;
  }
  return nullptr;
}

void CancelTable::erase(CancelEntry* note) noexcept {
  note->owner.store(0);
  --count_;
}

std::int64_t CancelTable::look_up(std::uint64_t owner, std::uint64_t call) const noexcept {
  const std::size_t first = first_place(owner, call);
  for (std::size_t i = 0; i < reach; ++i) {
    const CancelEntry& note = notes_[(first + i) % note_count];
    if (note.owner.load() == owner && note.call.load(std::memory_order_relaxed) == call)
      return note.deadline.load();
  }
  return no_deadline;
}

}  // namespace evparallel
