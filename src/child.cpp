// child.cpp - the life of a child: take the task, answer calls or converse, end.
// Licence: see COPYING.
//
// A plain `run` child has no event loop: it moves frames with blocking calls.  The loop is made at
// the first use of this_reactor(), of a Reply or of a Pipe.
#include "child.hpp"

#include "fork.hpp"
#include "pipe_core.hpp"
#include "remote_error.hpp"
#include "snapshot_entry.hpp"
#include "task_frame.hpp"

#include <evparallel/task.hpp>

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

namespace evparallel {

namespace {

constexpr std::size_t default_high_water = std::size_t{1} << 20;
constexpr int status_of_uncaught = 70;  // EX_SOFTWARE
// Answers are gathered only by a task that has shown to be short: so many calls in a row under this
// time; and only while the calls of the present read have not taken longer than that together.  A
// finished answer must not wait for a slow call.
constexpr unsigned gather_after = 64;
constexpr std::int64_t short_call_ns = 5000;
constexpr std::int64_t gather_ns = 50000;

std::int64_t now_ns() noexcept {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

}  // namespace

namespace detail {

// The one child that this process is.
class Child final : public PipeOwner {
public:
  explicit Child(Spawn&& spawn)
      : slot_(spawn.slot), channel_(std::move(spawn.socket), frame_length_limit) {}

  void run_task();
  void answer(Callback<void(Reader&, Writer&)>);
  void answer_later(Callback<void(Reader&, std::shared_ptr<ReplyCore>)>);
  std::shared_ptr<PipeCore> pipe();
  void converse();

  void reply(std::uint64_t id, FrameKind, Writer&);
  void reply_gone() noexcept;

  // What was answered or sent leaves before the process does.
  void flush_all() noexcept;
  void fail_task(const Error&) noexcept;

private:
  bool wait_for_frame(Frame&);
  void wait_until_readable();
  void note_readable() { readable_ = true; }
  void answer_one(Frame&, Callback<void(Reader&, Writer&)>&);
  void put_error(std::uint64_t id, const Error&);
  void write_answers();
  bool may_gather() const noexcept;
  void begin(std::uint64_t id) noexcept { slot_->started.store(id, std::memory_order_release); }

  void on_frame(Frame&) override;
  void on_over() override { over_ = true; }
  void loop_until_over();

  Slot* slot_;
  Channel channel_;
  std::size_t high_water_ = default_high_water;
  char scratch_[Loop::scratch_size / 2];
  Writer message_;

  std::int64_t read_at_ = 0;
  std::int64_t call_ended_at_ = 0;
  unsigned short_calls_ = 0;

  Event readable_event_;
  bool readable_ = false;

  std::shared_ptr<PipeCore> core_;
  Callback<void(Reader&, std::shared_ptr<ReplyCore>)> later_;
  std::size_t unanswered_ = 0;
  bool ended_by_parent_ = false;
  bool over_ = false;
};

// One call of an asynchronous task.  The last copy of its Reply drops it.
class ReplyCore {
public:
  ReplyCore(Child& child, std::uint64_t id) noexcept : child_(child), id_(id) {}
  ~ReplyCore() {
    error(Error(Errc::remote_exception, "the task dropped its reply")
              .with_remote_type("evparallel::Reply"));
    child_.reply_gone();
  }
  ReplyCore(const ReplyCore&) = delete;
  ReplyCore& operator=(const ReplyCore&) = delete;

  bool value(Writer& out) {
    if (std::exchange(answered_, true)) return false;
    try {
      child_.reply(id_, FrameKind::value, out);
    } catch (const Error& too_large) {
      answered_ = false;
      error(too_large);
    }
    return true;
  }
  bool error(const Error& error) {
    if (std::exchange(answered_, true)) return false;
    Writer out;
    write_error(out, error);
    child_.reply(id_, FrameKind::error, out);
    return true;
  }

private:
  Child& child_;
  std::uint64_t id_;
  bool answered_ = false;
};

// ---- the task ----

void Child::run_task() {
  Frame frame;
  if (!wait_for_frame(frame) || frame.kind != FrameKind::task) return;
  const std::string body(frame.body);
  Reader callable(body);
  const TaskFrame task = read_task_frame(callable);
  channel_.set_max_message(task.max_message);
  high_water_ = task.high_water;
  task.entry(*this, callable);
}

// ---- synchronous calls ----

// The next frame; before it waits, what was gathered is written.  False: the parent has closed, or
// is gone.
bool Child::wait_for_frame(Frame& frame) {
  while (!channel_.next(frame)) {
    channel_.keep();
    write_answers();
    if (channel_.in_over()) return false;
    if (living_loops() > 0) wait_until_readable();
    channel_.receive(scratch_, sizeof scratch_, Wait::yes);
    read_at_ = call_ended_at_ = now_ns();
  }
  return frame.kind != FrameKind::end;
}

// The task has made a loop: its timers and watches run while the child waits.  Calls are answered
// outside of it, so that a task may run the loop itself.
void Child::wait_until_readable() {
  Loop& loop = *this_reactor().loop();
  readable_event_.set<&Child::note_readable>(loop, channel_.fd(), EV_READ, this);
  readable_ = false;
  readable_event_.add();
  while (!readable_) loop.turn();
}

void Child::answer(Callback<void(Reader&, Writer&)> call) {
  Frame frame;
  while (wait_for_frame(frame)) {
    if (frame.kind != FrameKind::call) continue;
    if (!may_gather()) write_answers();
    answer_one(frame, call);
  }
}

void Child::answer_one(Frame& frame, Callback<void(Reader&, Writer&)>& call) {
  begin(frame.id);
  try {
    if (frame.too_large)
      throw Error(Errc::too_large, "too large: the argument is above the limit of the child");
    Reader in = frame.reader();
    message_.clear();
    call(in, message_);
    channel_.put(FrameKind::value, frame.id, message_);
  } catch (const Error& error) {
    put_error(frame.id, error);
  } catch (...) {
    put_error(frame.id, current_exception_as_remote());
  }
  const std::int64_t now = now_ns();
  short_calls_ = now - call_ended_at_ <= short_call_ns ? short_calls_ + 1 : 0;
  call_ended_at_ = now;
}

bool Child::may_gather() const noexcept {
  return short_calls_ >= gather_after && call_ended_at_ - read_at_ < gather_ns;
}

void Child::put_error(std::uint64_t id, const Error& error) {
  message_.clear();
  write_error(message_, error);
  channel_.put(FrameKind::error, id, message_);
}

// What a task has printed is out before its caller hears.
void Child::write_answers() {
  if (channel_.queued() == 0) return;
  flush_streams();
  channel_.flush(Wait::yes);
}

// ---- asynchronous calls ----

void Child::answer_later(Callback<void(Reader&, std::shared_ptr<ReplyCore>)> call) {
  later_ = std::move(call);
  pipe();
  // Calls under way are answered before this direction is closed, too.
  core_->set_on_end([this] {
    if (unanswered_ == 0) core_->close();
    ended_by_parent_ = true;
  });
  // The parent is gone or has dropped its Remote: nobody reads answers any more.
  core_->set_on_error([this](const Error&) { over_ = true; });
  loop_until_over();
}

void Child::on_frame(Frame& frame) {
  if (frame.kind != FrameKind::call) return;
  begin(frame.id);
  ++unanswered_;
  auto core = std::make_shared<ReplyCore>(*this, frame.id);
  try {
    if (frame.too_large)
      throw Error(Errc::too_large, "too large: the argument is above the limit of the child");
    Reader in = frame.reader();
    later_(in, core);
  } catch (const Error& error) {
    core->error(error);
  } catch (...) {
    core->error(current_exception_as_remote());
  }
}

void Child::reply(std::uint64_t id, FrameKind kind, Writer& out) {
  flush_streams();
  core_->put(kind, id, out);
}

void Child::reply_gone() noexcept {
  if (--unanswered_ > 0 || !ended_by_parent_) return;
  core_->close();
}

// ---- a process ----

std::shared_ptr<PipeCore> Child::pipe() {
  const std::shared_ptr<Loop>& loop = this_reactor().loop();
  core_ = std::make_shared<PipeCore>(loop, std::move(channel_), high_water_,
                                     PipeCore::LastWord::none, this);
  core_->start();
  return core_;
}

void Child::converse() {
  loop_until_over();
}

void Child::loop_until_over() {
  Loop& loop = *core_->loop();
  while (!over_) loop.turn();
}

// ---- its end ----

void Child::flush_all() noexcept {
  flush_streams();
  try {
    if (core_)
      core_->flush_blocking();
    else
      channel_.flush(Wait::yes);
  } catch (...) {
    // Nobody is left to tell.
  }
}

// The task itself has failed, not one of its calls.
void Child::fail_task(const Error& error) noexcept {
  try {
    Writer out;
    write_error(out, error);
    if (core_)
      core_->put(FrameKind::error, 0, out);
    else
      channel_.put(FrameKind::error, 0, out);
  } catch (...) {
    // The exit status says it.
  }
}

void child_answer(Child& child, Callback<void(Reader&, Writer&)> call) {
  child.answer(std::move(call));
}
void child_answer_later(Child& child, Callback<void(Reader&, std::shared_ptr<ReplyCore>)> call) {
  child.answer_later(std::move(call));
}
std::shared_ptr<PipeCore> child_pipe(Child& child) {
  return child.pipe();
}
void child_converse(Child& child) {
  child.converse();
}

bool reply_value(ReplyCore& core, Writer& out) {
  return core.value(out);
}
bool reply_error(ReplyCore& core, const Error& error) {
  return core.error(error);
}
bool reply_exception(ReplyCore& core, std::exception_ptr exception) {
  try {
    std::rethrow_exception(std::move(exception));
  } catch (...) {
    return core.error(current_exception_as_remote());
  }
}

}  // namespace detail

namespace {

detail::Child* this_child = nullptr;

// For a task that calls exit(): being the last that was registered, it runs first, and what the
// program registered before the snapshot does not run at all.
void leave_by_exit(int status, void*) {
  this_child->flush_all();
  ::_exit(status);
}

int life(detail::Child& child) noexcept {
  try {
    child.run_task();
    return 0;
  } catch (const Error& error) {
    child.fail_task(error);
  } catch (...) {
    child.fail_task(current_exception_as_remote());
  }
  return status_of_uncaught;
}

}  // namespace

void live(Spawn&& spawn) {
  SnapshotEntry::become_child(spawn.snapshot, spawn.slots, std::move(spawn.door));
  this_child = new detail::Child(std::move(spawn));
  ::on_exit(leave_by_exit, nullptr);
  const int status = life(*this_child);
  this_child->flush_all();
  ::_exit(status);
}

}  // namespace evparallel
