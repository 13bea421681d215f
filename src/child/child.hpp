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

#include <evparallel/task.hpp>

namespace evparallel {

namespace detail {

// Made by the snapshot for each child: to allocate the first time is to write to four pages.
extern std::unique_ptr<ChannelBuffers> traffic_of_child;

class Child final : public PipeObserver {
public:
  EVPARALLEL_EARLY explicit Child(ChildArgs&& spawn)
      : slot_(spawn.slot),
        crash_record_(crash_record(spawn.slots, static_cast<std::size_t>(slot_ - spawn.slots))),
        notes_(spawn.notes),
        no_null_device_(spawn.no_null_device),
        channel_(std::move(spawn.socket), frame_length_limit,
                 Pooled<ChannelBuffers>(std::move(traffic_of_child))) {}

  void run_task();
  void warm_up(Reader& code);

  // ---- what a task's entry calls ----
  void answer(Callback<void(Reader&, Writer&)>);
  void tell_ready();
  // Each answer is written before the next call begins, however short they are.
  void never_gather() noexcept { gathers_ = false; }
  void answer_later(Callback<void(Reader&, std::shared_ptr<ReplyCore>)>);
  std::shared_ptr<PipeCore> pipe();
  void converse();
  void will_exec();

  // ---- its calls ----
  void reply(std::uint64_t id, FrameKind, Writer&);
  void reply_gone() noexcept;
  std::uint64_t current_call() const noexcept { return current_; }

  // A task may fork by itself, and the copy may come back from it: that is no child.  It leaves, and
  // the socket and the slot are left to the one that it was copied from.
  void mark_forked_copy() noexcept { is_forked_copy_ = true; }
  // When a call is due; for 0: the child itself.
  std::int64_t deadline_of(std::uint64_t call) const noexcept {
    return call == 0 ? deadline_ : notes_->deadline_of(owner_id_, call);
  }

  // ---- its end ----
  // Hooks, and all that was written.  Returns its exit status, which is `status` if all went well.
  int end(int status) noexcept;
  // What was answered or sent leaves before the process does.
  void flush_all() noexcept;
  void fail_task(const Error&) noexcept;

private:
  void end_pipe() noexcept;
  bool take_task();
  void prepare(const TaskFrame&, std::string_view environment);
  void keep_backtraces(const void* outermost) noexcept;
  bool wait_for_frame(Frame&);
  void wait_until_readable();
  void note_readable() { readable_ = true; }
  bool take_call(Frame&, Callback<void(Reader&, Writer&)>&);
  void answer_one(Frame&, Callback<void(Reader&, Writer&)>&);
  void answer_later_one(Frame&);
  void put_error(std::uint64_t id, const Error&);
  void write_answers();
  void write_between_calls();
  bool may_gather() const noexcept;
  void note_time() noexcept;

  void on_frame(Frame&) override;
  void on_over() override { over_ = true; }
  void loop_until_over();

  bool is_forked_copy_ = false;
  bool has_task_ = false;  // not the rehearsal
  Slot* slot_;
  CrashRecord& crash_record_;
  CancelTable* notes_;
  int no_null_device_;  // an errno
  Channel channel_;
  std::size_t high_water_ = std::size_t{1} << 20;
  std::uint64_t owner_id_ = 0;
  std::int64_t deadline_ = no_deadline;
  std::uint64_t current_ = 0;
  Writer message_;

  // Of the calls of one read, where there are several or some were gathered before: for one alone
  // nothing is gathered, and a child that answers one call and no more would look at the clock three
  // times.
  bool timed_ = false;
  std::int64_t gathering_since_ = 0;  // no answer that is queued is older
  std::int64_t call_ended_at_ = 0;
  unsigned short_calls_ = 0;
  bool gathers_ = true;

  Event readable_event_;
  bool readable_ = false;

  std::shared_ptr<PipeCore> core_;
  Callback<void(Reader&, std::shared_ptr<ReplyCore>)> later_;
  std::size_t unanswered_ = 0;
  bool ended_by_parent_ = false;
  bool over_ = false;
  char scratch_[Loop::scratch_size / 2];  // last: what came stands on the page of all the rest
};

// nullptr in every process that is no child.
extern Child* this_child;

}  // namespace detail

}  // namespace evparallel
