// task.cpp - tasks as they travel, and the check of what a lambda has captured.
// Licence: see COPYING.
#include <evparallel/task.hpp>

#include "early.hpp"
#include "remote_error.hpp"
#include "task_frame.hpp"

#include <pthread.h>

#include <cstring>
#include <stdexcept>

namespace evparallel {

void write_task_frame(Writer& out, TaskFrame head, const std::string& surroundings,
                      const std::string& callable) {
  head.surroundings = surroundings.size();
  out.write(&head, sizeof head);
  out.write(surroundings);
  out.write(callable);
}

EVPARALLEL_EARLY TaskFrame read_task_frame(Reader& in) {
  TaskFrame head;
  in.read(&head, sizeof head);
  return head;
}

std::optional<Error> why_unknown(const Modules& then, const detail::Task& task) {
  std::optional<Error> why = why_unknown(then, reinterpret_cast<std::uintptr_t>(task.entry));
  if (!why && task.function)
    why = why_unknown(then, reinterpret_cast<std::uintptr_t>(*task.function));
  for (std::size_t i = 0; !why && i < task.more.size(); ++i)
    why = why_unknown(then, reinterpret_cast<std::uintptr_t>(task.more[i]));
  return why;
}

namespace detail {

namespace {

struct Range {
  std::uintptr_t from = 0;
  std::uintptr_t to = 0;
};

// Asked once a thread: for the first thread the C library reads /proc.
Range stack_of_this_thread() noexcept {
  thread_local Range range;
  pthread_attr_t attributes;
  if (range.to == 0 && ::pthread_getattr_np(::pthread_self(), &attributes) == 0) {
    void* address = nullptr;
    std::size_t size = 0;
    if (::pthread_attr_getstack(&attributes, &address, &size) == 0) {
      range.from = reinterpret_cast<std::uintptr_t>(address);
      range.to = range.from + size;
    }
    ::pthread_attr_destroy(&attributes);
  }
  return range;
}

}  // namespace

void check_captures(const void* bytes, std::size_t size) {
  const Range stack = stack_of_this_thread();
  for (std::size_t at = 0; at + sizeof(std::uintptr_t) <= size; at += sizeof(std::uintptr_t)) {
    std::uintptr_t word;
    std::memcpy(&word, static_cast<const char*>(bytes) + at, sizeof word);
    if (word >= stack.from && word < stack.to)
      throw std::logic_error(
          "evparallel: this callable captures a local by reference, or a pointer to one, and the "
          "child has no such "
          "variable; capture by value, or pass it with bind(f, args...); as_is(f) switches this "
          "check off");
  }
}

void rethrow_as_remote() {
  throw current_exception_as_remote();
}

}  // namespace detail

}  // namespace evparallel
