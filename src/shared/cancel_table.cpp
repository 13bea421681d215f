// cancel_table.cpp - the table of deadlines and cancelled calls.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "shared/cancel_table.hpp"

#include "base/startup_path.hpp"
#include "system/fork.hpp"
#include "system/polling.hpp"
#include "system/process_lock.hpp"
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

namespace {

constexpr unsigned number_bits = 42;
constexpr std::uint64_t number_mask = (std::uint64_t{1} << number_bits) - 1;

// The last id that was given out, and the process that did: a forked copy begins anew.
std::atomic<std::uint64_t> last_owner{0};
std::atomic<Role> role_of_last{Role::parent};

// A pid has at most 22 bits; a process that gets the same pid later starts at another time.
void begin_owners(std::uint64_t pid) noexcept {
  const ProcessLock lock;
  if (last_owner >> number_bits == pid && role_of_last == role()) return;
  last_owner = pid << number_bits | ((static_cast<std::uint64_t>(now_ns()) >> 10) & number_mask);
  role_of_last = role();
}

}  // namespace

std::uint64_t CancelTable::new_owner() noexcept {
  const auto pid = static_cast<std::uint64_t>(::getpid());
  if (last_owner.load() >> number_bits != pid || role_of_last.load() != role()) begin_owners(pid);
  std::uint64_t last = last_owner.load();
  std::uint64_t next;
  do next = (last & ~number_mask) | ((last + 1) & number_mask);
  while (!last_owner.compare_exchange_weak(last, next));
  return next;
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

// The parent decides within two instructions, unless it is preempted between them or has ended.
std::int64_t CancelTable::wait_for_decision(std::uint64_t owner,
                                            std::uint64_t call) const noexcept {
  std::int64_t deadline;
  while ((deadline = deadline_of(owner, call)) == undecided) pause_for(1);
  return deadline;
}

}  // namespace evparallel::detail
