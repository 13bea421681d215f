// child_main.cpp - the main function of a child: take the task, converse, end.
// Runs in: child.  Licence: see COPYING.
#include "child/child_main.hpp"

#include "base/no_memory.hpp"
#include "base/system_error.hpp"
#include "base/startup_path.hpp"
#include "system/failpoint.hpp"
#include "system/flush_streams.hpp"
#include "system/fork.hpp"
#include "system/random_seed.hpp"
#include "backtrace/crash_record.hpp"
#include "backtrace/throw_site.hpp"
#include "codec/remote_error.hpp"
#include "codec/task_frame.hpp"
#include "child/birth.hpp"
#include "child/child.hpp"
#include "child/enter_environment.hpp"
#include "child/hooks.hpp"
#include "child/limits.hpp"

#include <evparallel/child_hooks.hpp>

#include <stdlib.h>

#include <new>
#include <stdexcept>

namespace evparallel {

namespace detail {

namespace {

constexpr int status_of_uncaught = 70;  // EX_SOFTWARE

// A limit that the kernel refuses fails the spawn: otherwise it would silently not apply.
void check(const char* option, int error) {
  if (error != 0)
    throw system_error(Errc::spawn_failed, std::string("spawn failed: cannot set ") + option,
                       error);
}

void enter_limits(const TaskFrame& task, CallCpuLimit& call_cpu) {
  if (task.cpu_seconds > 0) check("Limits::cpu", limit_cpu(task.cpu_seconds));
  if (task.cpu_per_call > 0) check("Limits::cpu_per_call", call_cpu.set(task.cpu_per_call));
  if (task.nice != 0)
    check(("Options::nice to " + std::to_string(task.nice)).c_str(), add_to_niceness(task.nice));
  if (task.memory > 0) check("Limits::memory", limit_memory(task.memory));
}

}  // namespace

Child* this_child = nullptr;
std::unique_ptr<ChannelBuffers> traffic_of_child;

namespace {

constexpr std::size_t most_early = 256;  // bytes of answers

// Static storage: on the heap, a child would have to find room first.
alignas(Child) char storage_of_child[sizeof(Child)];

}  // namespace

// ---- the task ----

// A spare child has two tasks, one after the other: the warm-up and the real one.
EVPARALLEL_EARLY void Child::run_task() {
  while (take_task() && !has_task_) {}
}

EVPARALLEL_EARLY bool Child::take_task() {
  Frame frame;
  if (!wait_for_frame(frame) || frame.kind != FrameKind::task) return false;
  if (frame.skipped == Frame::Skipped::no_memory) throw no_memory("for the task");
  Reader callable(
      frame.body);  // valid until the next frame is read; it is deserialized long before
  const TaskFrame task = read_task_frame(callable);
  has_task_ = task.entry != &detail::warm_up;
  if (has_task_) slot_->task_at.store(now_ns());
  prepare(task, callable.read(size_in_message(task.environment)));
  fault_at(Failpoint::task);
  task.entry(*this, callable);
  return true;
}

EVPARALLEL_EARLY void Child::prepare(const TaskFrame& task, std::string_view environment) {
  channel_.set_max_message(task.max_message);
  channel_.set_max_decoded(task.max_decoded);
  high_water_ = task.high_water;
  owner_id_ = task.owner_id;
  deadline_ = task.deadline;
  take_seed(task.seed);
  apply_environment(environment);
  if (no_null_device_ != 0)
    throw system_error(Errc::spawn_failed,
                       "spawn failed: /dev/null could not be opened for a standard stream",
                       no_null_device_);
  if (!has_task_) return;  // the rest happens once
  if (task.backtrace) keep_backtraces(__builtin_frame_address(0));
  if (task.is_limited()) enter_limits(task, call_cpu_);
  call_start_hooks();
}

// Frames outside of `outermost` belong to the program, as it was when the snapshot was taken.
void Child::keep_backtraces(const void* outermost) noexcept {
  report_crashes(crash_record_, owner_id_, outermost);
  record_throws(outermost);
}

// ---- a process ----

std::shared_ptr<PipeInterface> Child::open_pipe() {
  mark_started();
  const std::shared_ptr<Loop>& loop = this_reactor().loop();
  core_ = std::make_shared<PipeCore>(loop, std::move(channel_), high_water_,
                                     PipeCore::ExitReport::none, this);
  core_->start();
  return core_;
}

void Child::converse() {
  converse_until(over_);
}

void Child::converse_until(const bool& done) {
  Loop& loop = *this_reactor().loop();
  while (!done && !is_forked_copy_) loop.turn();
}

// ---- a supervised function ----

void Child::begin_service() {
  serves_ = true;
  mark_started();
  report_ready();
  write_answers();
}

// ---- its end ----

EVPARALLEL_EARLY void Child::flush_all() noexcept {
  flush_streams();
  if (is_forked_copy_) return;  // pending output is also in the child that was copied
  try {
    if (core_)
      core_->flush_blocking();
    else
      channel_.flush(Wait::yes);
  } catch (...) {
    // No process is left that could receive the error.
  }
}

// A process that the task has forked calls no hooks, and neither does a child without a task.
EVPARALLEL_EARLY int Child::end(int status) noexcept {
  flush_all();
  if (is_forked_copy_ || !has_task_) return status;
  const std::optional<Error> failure = call_exit_hooks();
  if (failure) fail_task(*failure);
  end_pipe();
  flush_all();
  return failure ? status_of_uncaught : status;
}

// For a task that has closed its pipe, and has called exit() before the end frame was written.
void Child::end_pipe() noexcept {
  try {
    if (core_) core_->end_out();
  } catch (...) {
    // The exit status says how it ended.
  }
}

// For a failure of the task itself, not of one of its calls.
void Child::fail_task(const Error& error) noexcept {
  try {
    if (core_) return core_->put_task_error(error);
    Writer out;
    write_error(out, error);
    channel_.put(FrameKind::error, 0, out);
  } catch (...) {
    // The exit status reports it.
  }
}

// The end frame of the pipe is sent first: then the parent takes the end of the socket, which the
// next program closes, for that of a process that is about to end.
void Child::will_exec() {
  if (!serves_ && (!core_ || later_))
    throw std::logic_error(
        "evparallel: will_exec() can be called only by the task of a process or of a supervisor");
  if (!is_forked_copy_) {
    if (serves_) {
      channel_.finish();
    } else {
      core_->close();
      core_->end_out();
    }
  }
  flush_all();
}

}  // namespace detail

using namespace detail;

std::uint64_t child_seed() {
  if (role() != Role::child)
    throw std::logic_error("evparallel: child_seed() was called in a process that is not a child");
  return taken_seed();
}

namespace this_child {

void will_exec() {
  if (!detail::this_child)
    throw std::logic_error("evparallel: will_exec() was called in a process that is not a child");
  detail::this_child->will_exec();
}

}  // namespace this_child

namespace detail {

namespace {

// For a task that calls exit().  This handler was registered last, so it runs first, and the
// handlers that the program registered before the snapshot do not run at all.
void leave_by_exit(int status, void*) {
  if (!this_child) return;
  ::on_exit(leave_by_exit, nullptr);  // a hook may itself call exit()
  end_child(this_child->end(status));
}

EVPARALLEL_EARLY void mark_forked_copy() noexcept {
  if (!this_child) return;
  this_child->mark_forked_copy();
  leave_death_signal();
}

EVPARALLEL_EARLY int run_child(Child& child) noexcept {
  try {
    child.run_task();
    return 0;
  } catch (const Error& error) {
    child.fail_task(error);
  } catch (...) {
    end_if_thread_leaves();
    child.fail_task(current_exception_as_remote());
  }
  return status_of_uncaught;
}

}  // namespace

void prepare_child_main() {
  traffic_of_child = std::make_unique<ChannelBuffers>();
  traffic_of_child->out.reserve(most_early);
  on_fork_in_child(mark_forked_copy);
  ::on_exit(leave_by_exit, nullptr);
}

EVPARALLEL_EARLY void child_main(ChildArgs&& spawn) {
  fault_at(Failpoint::child_main);
  keep_inheritance(spawn);
  this_child = new (storage_of_child) Child(std::move(spawn));
  int status = run_child(*this_child);
  fault_at(Failpoint::drain);
  status = this_child->end(status);
  fault_at(Failpoint::leave);
  end_child(status);
}

}  // namespace detail

}  // namespace evparallel
