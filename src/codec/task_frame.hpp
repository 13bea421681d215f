// task_frame.hpp - the first frame to a child: its task.
// Runs in: parent, child.  Licence: see COPYING.  Manual: evparallel_protocol(7).
#pragma once

#include <evparallel/io.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace evparallel::detail {

class ChildInterface;

struct TaskFrame {
  void (*entry)(ChildInterface&, Reader& callable) = nullptr;
  std::size_t max_message = 0;
  std::size_t max_decoded = 0;
  std::size_t high_water = 0;
  std::uint64_t owner_id = 0;    // of this child's entries in the cancel table
  std::int64_t deadline = 0;     // of the child itself: CLOCK_MONOTONIC, nanoseconds
  std::int64_t cpu_seconds = 0;  // limits; 0: none
  std::int64_t cpu_per_call = 0;
  std::uint64_t memory = 0;
  std::int64_t nice = 0;
  std::uint64_t backtrace = 0;    // 1: of crashes and of exceptions
  std::uint64_t seed = 0;         // child_seed()
  std::uint64_t environment = 0;  // size of their text, which stands before the callable

  bool is_limited() const noexcept {
    return cpu_seconds > 0 || cpu_per_call > 0 || memory > 0 || nice != 0;
  }
};

// Stands in front of two callables, that of Options::on_start and that of the task.
struct StartHead {
  void (*start)(Reader& callable) = nullptr;
  void (*task)(ChildInterface&, Reader& callable) = nullptr;
  std::uint64_t start_size = 0;  // of the first callable
};

// Sets `environment`, the size of the text.
void write_task_frame(Writer&, TaskFrame, const std::string& environment,
                      const std::string& callable);
// The rest of the reader is that text, and the callable.
TaskFrame read_task_frame(Reader&);

}  // namespace evparallel::detail
