// captures.cpp - refuses lambdas that have captured a pointer into a stack.
// Runs in: parent.  Licence: see COPYING.
#include "backtrace/stack_walk.hpp"

#include <evparallel/task.hpp>

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

// The C library keeps the address where the stack of the first thread begins.
extern "C" void* __libc_stack_end;

namespace evparallel::detail {

namespace {

struct Range {
  std::uintptr_t from = 0;
  std::uintptr_t to = 0;
  bool has(std::uintptr_t address) const noexcept { return address >= from && address < to; }
};

// The stack of the first thread, for use without /proc.  Empty if the stack has no limit: then it
// may be anywhere below its end.
Range first_stack() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  const auto page = static_cast<std::uintptr_t>(::getpagesize());
  const std::uintptr_t end =
      (reinterpret_cast<std::uintptr_t>(__libc_stack_end) + page) & ~(page - 1);
  return {end - static_cast<std::uintptr_t>(std::min<rlim_t>(end, limit.rlim_cur)), end};
}

// Looked up once in a thread, because the C library reads /proc for the first thread.
Range stack_of_this_thread() noexcept {
  thread_local Range range;
  pthread_attr_t attributes;
  if (range.to != 0) return range;
  if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return first_stack();
  void* address = nullptr;
  std::size_t size = 0;
  if (::pthread_attr_getstack(&attributes, &address, &size) == 0) {
    range.from = reinterpret_cast<std::uintptr_t>(address);
    range.to = range.from + size;
  }
  ::pthread_attr_destroy(&attributes);
  return range;
}

// A coroutine has a stack of its own, and only its active frames are known; a variable that a
// lambda has captured by reference is in one of them.  If the unwinder finds no frames, the memory
// close above the stack pointer is taken for the stack.
constexpr std::uintptr_t close_above = 4096;
[[gnu::noinline]] Range frames_of_another_stack(const Range& of_thread) noexcept {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  if (of_thread.has(here)) return {};
  const std::uintptr_t end = end_of_frames(of_thread.from, of_thread.to);
  return {here, end > here ? end : here + close_above};
}

}  // namespace

void check_captures(const void* bytes, std::size_t size, Padding padding) {
  if (size < sizeof(std::uintptr_t)) return;
  Range of_thread = stack_of_this_thread();
  const Range of_coroutine = frames_of_another_stack(of_thread);
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  if (padding == Padding::stale && of_thread.has(here)) of_thread.from = here;
  for (std::size_t at = 0; at + sizeof(std::uintptr_t) <= size; at += sizeof(std::uintptr_t)) {
    std::uintptr_t word;
    std::memcpy(&word, static_cast<const char*>(bytes) + at, sizeof word);
    if (of_thread.has(word) || of_coroutine.has(word))
      throw std::logic_error(
          "evparallel: this callable captures a local variable by reference, or a pointer to one, "
          "and the child has no such variable; capture by value, or pass it with bind(f, args...); "
          "as_is(f) disables this check");
  }
}

}  // namespace evparallel::detail
