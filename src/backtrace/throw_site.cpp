// throw_site.cpp - the stacks of the exceptions that are alive.
// Runs in: parent, child.  Licence: see COPYING.
#include "backtrace/throw_site.hpp"

#include "backtrace/stack_walk.hpp"

#include <atomic>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <new>

namespace evparallel::detail {

namespace {

struct Site {
  std::atomic<void*> exception{nullptr};  // null: free
  DestroyException destroy;
  std::size_t count;
  std::uintptr_t frames[longest_trace];
};

// An exception that the program stores occupies its entry; when all entries are in use, further
// exceptions are not recorded.  Not in static storage: that is small, so that a child writes to
// only one page of it.
struct Sites {
  Site all[16];
  Site* begin() noexcept { return all; }
  Site* end() noexcept { return all + std::size(all); }
};
Sites* sites = nullptr;
std::atomic<bool> recording{false};
std::atomic<bool> throw_library{false};
const void* outermost_frame;

Site* find(void* exception) noexcept {
  if (!sites) return nullptr;
  for (Site& site : *sites)
    if (site.exception.load(std::memory_order_acquire) == exception) return &site;
  return nullptr;
}

Site* claim(void* exception) noexcept {
  for (Site& site : *sites) {
    void* nobody = nullptr;
    if (site.exception.compare_exchange_strong(nobody, exception)) return &site;
  }
  return nullptr;
}

bool take_frame(void* argument, std::uintptr_t address) {
  Site& site = *static_cast<Site*>(argument);
  site.frames[site.count++] = address;
  return site.count < longest_trace;
}

// Without this, another exception that gets the same memory without a throw
// (std::make_exception_ptr) would seem to have been thrown here.
void forget_and_destroy(void* exception) {
  Site* site = find(exception);
  if (site == nullptr) return;
  const DestroyException destroy = site->destroy;
  site->exception.store(nullptr, std::memory_order_release);
  if (destroy) destroy(exception);
}

// In both C++ libraries it contains only this pointer.
static_assert(sizeof(std::exception_ptr) == sizeof(void*));
void* object_of(const std::exception_ptr& pointer) noexcept {
  void* object;
  std::memcpy(&object, static_cast<const void*>(&pointer), sizeof object);
  return object;
}

}  // namespace

void record_throws(const void* outermost) noexcept {
  outermost_frame = outermost;
  warm_up_walks();
  if (!sites) sites = new (std::nothrow) Sites{};
  recording.store(sites != nullptr);
}

DestroyException record_throw(void* exception, DestroyException destroy,
                              std::uintptr_t return_address) noexcept {
  Site* site = recording.load(std::memory_order_relaxed) ? claim(exception) : nullptr;
  if (site == nullptr) return destroy;
  site->destroy = destroy;
  site->count = 0;
  walk_stack(return_address, outermost_frame, take_frame, site);
  return forget_and_destroy;
}

void announce_throw_library() noexcept {
  throw_library.store(true);
}

bool has_throw_library() noexcept {
  return throw_library.load();
}

std::vector<std::uintptr_t> throw_site_of(const std::exception_ptr& pointer) {
  void* exception = object_of(pointer);
  const Site* site = exception ? find(exception) : nullptr;
  return site ? std::vector<std::uintptr_t>(site->frames, site->frames + site->count)
              : std::vector<std::uintptr_t>();
}

}  // namespace evparallel::detail
