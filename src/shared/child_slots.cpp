// child_slots.cpp - maps the shared arena, and decides between the next call and a stop request.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "shared/child_slots.hpp"

#include "base/startup_path.hpp"
#include "system/shared_memory.hpp"
#include "backtrace/crash_record.hpp"

namespace evparallel::detail {

namespace {

constexpr std::size_t arena_size = slot_count * (sizeof(Slot) + sizeof(CrashRecord));

}  // namespace

static_assert(sizeof(Slot) == 64, "one cache line each, so that children do not slow each other");
static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
                  std::atomic<StopRequest>::is_always_lock_free,
              "a lock would not reach across processes");

// Each side first writes its own word and then reads the other's (both sequentially consistent), so
// at least one of them sees what the other does.

bool Slot::begin_against(std::uint64_t before, std::uint64_t id) noexcept {
  call.store(before);
  StopRequest expected = StopRequest::requested;
  if (stop_request.compare_exchange_strong(expected, StopRequest::acknowledged)) return false;
  if (expected == StopRequest::acknowledged) return false;
  call.store(CallState{id, true}.word());  // the request was taken back
  return true;
}

// False: the child has already read a request, and ends.
bool Slot::set_stop_request() noexcept {
  StopRequest expected = StopRequest::none;
  return stop_request.compare_exchange_strong(expected, StopRequest::requested) ||
         expected == StopRequest::requested;
}

bool Slot::request_stop_in_call(std::uint64_t id) noexcept {
  if (!set_stop_request()) return false;
  if (call.load() == CallState{id, true}.word()) return true;
  take_stop_request_back();
  return false;
}

// The child writes `started` before it begins its first call.
bool Slot::request_stop_before_start() noexcept {
  if (!set_stop_request()) return false;
  if (!started.load()) return true;
  take_stop_request_back();
  return false;
}

void Slot::take_stop_request_back() noexcept {
  StopRequest expected = StopRequest::requested;
  stop_request.compare_exchange_strong(expected, StopRequest::none);
}

void Slot::clear() noexcept {
  call.store(0, std::memory_order_relaxed);
  answered_ping.store(0, std::memory_order_relaxed);
  stop_request.store(StopRequest::none, std::memory_order_relaxed);
  task_at.store(0, std::memory_order_relaxed);
  started.store(false, std::memory_order_relaxed);
}

Slot* map_slots() noexcept {
  return static_cast<Slot*>(map_shared(arena_size));
}

int make_slots(OwnedFd& file) noexcept {
  return make_shared_file("evparallel slots", arena_size, file);
}

Slot* map_slots_of(int file) noexcept {
  return static_cast<Slot*>(map_shared_file(file, arena_size));
}

void unmap_slots(Slot* arena) noexcept {
  unmap_shared(arena, arena_size);
}

EVPARALLEL_EARLY CrashRecord& crash_record(Slot* arena, std::size_t index) noexcept {
  return reinterpret_cast<CrashRecord*>(arena + slot_count)[index];
}

}  // namespace evparallel::detail
