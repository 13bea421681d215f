// child.hpp - the one child that this process is: its task, its calls, its end.
// Runs in: child.  Licence: see COPYING.
//
// A plain `run` child has no event loop: it moves frames with blocking calls.  The loop is made at
// the first use of this_reactor(), of a Reply or of a Pipe.
#pragma once

#include "base/startup_path.hpp"
#include "system/fork.hpp"
#include "codec/task_frame.hpp"
#include "shared/cancel_table.hpp"
#include "snapshot/server.hpp"
#include "pipe/pipe_core.hpp"
#include "child/limits.hpp"

#include <evparallel/task.hpp>

namespace evparallel::detail {

// Made in the snapshot, before the fork: a first allocation in the child would write to four pages.
extern std::unique_ptr<ChannelBuffers> traffic_of_child;

class Child final : public ChildInterface, public PipeObserver {
public:
  EVPARALLEL_EARLY explicit Child(ChildArgs&& spawn)
      : slot_(spawn.slot),
        crash_record_(crash_record(spawn.slots, static_cast<std::size_t>(slot_ - spawn.slots))),
        cancel_table_(spawn.cancel_table),
        no_null_device_(spawn.no_null_device),
        channel_(std::move(spawn.socket), longest_body,
                 Pooled<ChannelBuffers>(std::move(traffic_of_child))) {}

  void run_task();
  void warm_up(Reader& code);

  // ---- interface of the task's entry ----
  void answer(Callback<void(Reader&, Writer&)>) override;
  void report_ready();
  // From now on each answer is written before the next call begins, even if the calls are short.
  void never_gather() noexcept { gathers_ = false; }
  // Inside a call that consists of several ones: the next of them begins.
  void begin_part_of_call() noexcept { call_cpu_.begin(); }
  void answer_later(Callback<void(Reader&, std::shared_ptr<ReplyInterface>)>) override;
  std::shared_ptr<PipeInterface> open_pipe() override;
  void converse() override;
  void converse_until(const bool& done) override;
  void begin_service() override;
  void will_exec();

  // ---- its calls ----
  void reply(std::uint64_t id, FrameKind, Writer&);
  void reply_gone() noexcept;
  std::uint64_t current_call() const noexcept { return current_; }

  // A task may fork, and the copy may return from the task: the copy is no child.  It ends, and
  // leaves the socket and the slot to the child.
  void mark_forked_copy() noexcept { is_forked_copy_ = true; }
  // The deadline of a call; of call 0: that of the child itself.
  std::int64_t deadline_of(std::uint64_t call) const noexcept {
    return call == 0 ? deadline_ : cancel_table_->deadline_of(owner_id_, call);
  }
  std::int64_t deadline_at_begin(std::uint64_t call) const noexcept {
    return cancel_table_->decided_deadline_of(owner_id_, call);
  }

  // ---- its end ----
  // Calls the exit hooks and writes all output.  Returns the exit status, which is `status` if all
  // went well.
  int end(int status) noexcept;
  // Writes all answers and messages, so that they leave before the process ends.
  void flush_all() noexcept;
  void fail_task(const Error&) noexcept;

private:
  void end_pipe() noexcept;
  bool take_task();
  // The start is over: from here on the time is that of calls, or of the function of a process.
  void mark_started() noexcept { slot_->started.store(true); }
  void prepare(const TaskFrame&, std::string_view environment);
  void keep_backtraces(const void* outermost) noexcept;
  bool wait_for_frame(Frame&);
  void wait_until_readable();
  void record_readable() { readable_ = true; }
  bool take_call(Frame&, Callback<void(Reader&, Writer&)>&);
  void answer_one(Frame&, Callback<void(Reader&, Writer&)>&);
  void answer_later_one(Frame&);
  void put_error(std::uint64_t id, const Error&);
  void write_answers();
  void write_between_calls();
  bool may_gather() const noexcept;
  void record_time() noexcept;

  void on_frame(Frame&) override;
  void on_over() override { over_ = true; }

  bool is_forked_copy_ = false;
  bool has_task_ = false;  // false until it has a task other than the warm-up
  bool serves_ = false;    // it neither answers calls nor has a pipe
  Slot* slot_;
  CrashRecord& crash_record_;
  CancelTable* cancel_table_;
  int no_null_device_;  // an errno
  Channel channel_;
  std::size_t high_water_ = std::size_t{1} << 20;
  std::uint64_t owner_id_ = 0;
  std::int64_t deadline_ = no_deadline;
  std::uint64_t current_ = 0;
  CallCpuLimit call_cpu_;
  Writer message_;

  // Whether the calls of one read are timed: only if there are several, or if calls before them
  // were short.  A single call gathers no answers, and a child that answers only one call would
  // read the clock three times for it.
  bool timed_ = false;
  std::int64_t gathering_since_ = 0;  // no queued answer is older
  std::int64_t call_ended_at_ = 0;
  unsigned short_calls_ = 0;
  bool gathers_ = true;

  Event readable_event_;
  bool readable_ = false;

  std::shared_ptr<PipeCore> core_;
  Callback<void(Reader&, std::shared_ptr<ReplyInterface>)> later_;
  std::size_t unanswered_ = 0;
  bool ended_by_parent_ = false;
  bool over_ = false;
  // Last: received bytes are then on the same page as the other members.
  char scratch_[Loop::scratch_size / 2];
};

// nullptr in every process that is no child.
extern Child* this_child;

}  // namespace evparallel::detail
