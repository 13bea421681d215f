// slots.cpp - the mapping of the shared arena.
// Licence: see COPYING.
#include "slots.hpp"

#include <sys/mman.h>

namespace evparallel {

static_assert(sizeof(Slot) == 64, "one cache line each, so that children do not slow each other");
static_assert(std::atomic<std::uint64_t>::is_always_lock_free,
              "a lock would not reach across processes");

Slot* map_slots() noexcept {
  void* arena = ::mmap(nullptr, slot_count * sizeof(Slot), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return arena == MAP_FAILED ? nullptr : static_cast<Slot*>(arena);
}

}  // namespace evparallel
