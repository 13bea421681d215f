// child_calls.cpp - how a child answers: one call after the other, or each when its Reply says so.
// Runs in: child.  Licence: see COPYING.
#include "base/no_memory.hpp"
#include "base/startup_path.hpp"
#include "system/flush_streams.hpp"
#include "system/fork.hpp"
#include "codec/remote_error.hpp"
#include "child/child.hpp"
#include "child/child_main.hpp"

#include <evparallel/this_call.hpp>

#include <time.h>

#include <algorithm>

namespace evparallel {

namespace detail {

namespace {

// Answers are gathered only if the task has proved to be short: `gather_after` calls in a row took
// at most `short_call_ns`, and each was answered by a value, because a call may hang if the parent
// gives up some calls.  A finished answer waits at most `gather_ns` for the calls behind it.
constexpr unsigned gather_after = 64;
constexpr std::int64_t short_call_ns = 5000;
constexpr std::int64_t gather_ns = 50000;

// A call that the parent has given up is not begun, and its value is not sent: a task that has seen
// the cancellation may have returned anything.  `delivery`: how far the call has got.
EVPARALLEL_EARLY void check_wanted(std::int64_t deadline, Delivery delivery) {
  if (deadline == no_deadline || deadline > now_ns()) return;
  const bool begun = delivery == Delivery::started;
  if (is_reassignment(deadline) && begun) return;
  if (deadline == revoked || deadline == reassigned)
    throw Error(Errc::cancelled, begun ? "cancelled: the call was cancelled while the task ran"
                                       : "cancelled: the call was cancelled before the task began")
        .with_delivery(delivery);
  throw Error(Errc::deadline, begun ? "deadline: it passed while the task ran"
                                    : "deadline: it passed before the task began")
      .with_delivery(delivery);
}

EVPARALLEL_EARLY void check_size(const Frame& frame) {
  if (frame.skipped == Frame::Skipped::no) return;
  if (frame.skipped == Frame::Skipped::no_memory) throw no_memory("for the argument");
  throw Error(Errc::too_large, "too large: the argument exceeds the limit of the child");
}

std::chrono::nanoseconds time_until(std::int64_t deadline) noexcept {
  if (deadline == no_deadline || is_reassignment(deadline)) return std::chrono::nanoseconds::max();
  if (deadline == revoked) return std::chrono::nanoseconds::zero();
  return std::chrono::nanoseconds(std::max<std::int64_t>(deadline - now_ns(), 0));
}

}  // namespace

// One call of an asynchronous task.  It is destroyed with the last copy of its Reply.
class ReplyCore final : public ReplyInterface {
public:
  ReplyCore(Child& child, std::uint64_t id) noexcept : child_(child), id_(id) {}
  ~ReplyCore() {
    error(Error(Errc::remote_exception, "the task dropped its reply")
              .with_remote_type("evparallel::Reply"));
    child_.reply_gone();
  }
  ReplyCore(const ReplyCore&) = delete;
  ReplyCore& operator=(const ReplyCore&) = delete;

  bool value(Writer& out) override {
    if (std::exchange(answered_, true)) return false;
    try {
      check_wanted(deadline(), Delivery::started);
      child_.reply(id_, FrameKind::value, out);
    } catch (const Error& refused) {
      answered_ = false;
      error(refused);
    }
    return true;
  }
  bool error(const Error& error) override {
    if (std::exchange(answered_, true)) return false;
    Writer out;
    write_error(out, error);
    child_.reply(id_, FrameKind::error, out);
    return true;
  }

  bool exception(std::exception_ptr exception) override {
    try {
      std::rethrow_exception(std::move(exception));
    } catch (...) {
      return error(current_exception_as_remote());
    }
  }
  std::chrono::nanoseconds remaining() const noexcept override { return time_until(deadline()); }

private:
  std::int64_t deadline() const noexcept { return child_.deadline_of(id_); }

  Child& child_;
  std::uint64_t id_;
  bool answered_ = false;
};

// ---- synchronous calls ----

// Returns the next frame.  Writes the gathered answers before it waits.  False: the parent has
// closed its end, or is gone.
EVPARALLEL_EARLY bool Child::wait_for_frame(Frame& frame) {
  while (!channel_.next(frame)) {
    channel_.keep();
    write_answers();
    if (channel_.in_over()) return false;
    if (living_loops() > 0) wait_until_readable();
    if (is_forked_copy_) return false;  // a callback has forked
    channel_.receive(scratch_, sizeof scratch_, Wait::yes);
    timed_ = false;
  }
  return frame.kind != FrameKind::end;
}

// The task has made a loop: its timers and watches run while the child waits.  Calls are answered
// outside of the loop, so that a task may run the loop itself.
void Child::wait_until_readable() {
  Loop& loop = *this_reactor().loop();
  readable_event_.set<&Child::record_readable>(loop, channel_.fd(), EV_READ, this);
  readable_ = false;
  readable_event_.add();
  while (!readable_ && !is_forked_copy_) loop.turn();
}

EVPARALLEL_EARLY void Child::answer(Callback<void(Reader&, Writer&)> call) {
  mark_started();
  Frame frame;
  while (wait_for_frame(frame)) {
    if (frame.kind != FrameKind::call) continue;
    if (!timed_ && (channel_.more_is_here() || short_calls_ > 0)) {
      timed_ = true;
      gathering_since_ = call_ended_at_ = now_ns();
    }
    if (!may_gather()) write_between_calls();
    if (channel_.out_dead()) return;  // the parent reads no answers any more
    if (!take_call(frame, call)) return;
  }
}

// False: the child has to end.
EVPARALLEL_EARLY bool Child::take_call(Frame& frame, Callback<void(Reader&, Writer&)>& call) {
  check_death_signal(steps_of_call);
  if (!slot_->begin(frame.id)) return false;  // the snapshot has requested a stop
  current_ = frame.id;
  call_cpu_.begin();
  answer_one(frame, call);
  if (is_forked_copy_) return false;
  call_cpu_.end();
  current_ = 0;
  slot_->finish(frame.id);
  if (timed_) record_time();
  return true;
}

EVPARALLEL_EARLY void Child::answer_one(Frame& frame, Callback<void(Reader&, Writer&)>& call) {
  try {
    check_wanted(deadline_at_begin(frame.id), Delivery::sent);
    check_size(frame);
    Reader in = frame.reader();
    message_.clear();
    call(in, message_);
    check_wanted(deadline_of(frame.id), Delivery::started);
    channel_.put(FrameKind::value, frame.id, message_);
  } catch (const Error& error) {
    if (is_forked_copy_) throw;  // its exit status reports the error
    put_error(frame.id, error);
  } catch (...) {
    if (is_forked_copy_ || thread_is_leaving()) throw;
    put_error(frame.id, current_exception_as_remote());
  }
}

EVPARALLEL_EARLY void Child::record_time() noexcept {
  const std::int64_t now = now_ns();
  short_calls_ = now - call_ended_at_ <= short_call_ns ? short_calls_ + 1 : 0;
  call_ended_at_ = now;
}

EVPARALLEL_EARLY bool Child::may_gather() const noexcept {
  return gathers_ && short_calls_ >= gather_after && call_ended_at_ - gathering_since_ < gather_ns;
}

void Child::put_error(std::uint64_t id, const Error& error) {
  short_calls_ = 0;
  message_.clear();
  write_error(message_, error);
  channel_.put(FrameKind::error, id, message_);
}

// The output of a task is written before its answer is.
EVPARALLEL_EARLY void Child::write_answers() {
  if (channel_.queued() == 0) return;
  flush_streams();
  channel_.flush(Wait::yes);
}

// The time that this takes counts for no call.
void Child::write_between_calls() {
  if (channel_.queued() == 0) return;
  write_answers();
  gathering_since_ = call_ended_at_ = now_ns();
}

// Reports that the preparation that serves all calls is done.  Sent before the first call.
void Child::report_ready() {
  message_.clear();
  channel_.put(FrameKind::value, 0, message_);
}

// ---- asynchronous calls ----

void Child::answer_later(Callback<void(Reader&, std::shared_ptr<ReplyInterface>)> call) {
  later_ = std::move(call);
  open_pipe();
  // Calls that are in progress are answered before this direction is closed, too.
  core_->set_on_end([this] {
    if (unanswered_ == 0) core_->close();
    ended_by_parent_ = true;
  });
  // The parent is gone or has dropped its Remote: it reads no answers any more.
  core_->set_on_error([this](const Error&) { over_ = true; });
  converse_until(over_);
}

void Child::on_frame(Frame& frame) {
  if (frame.kind == FrameKind::ping) slot_->answered_ping.store(frame.id);
  if (frame.kind != FrameKind::call || over_) return;
  if (!slot_->begin(frame.id)) {
    over_ = true;  // the snapshot has requested a stop
    return;
  }
  current_ = frame.id;
  call_cpu_.begin();
  answer_later_one(frame);
  if (is_forked_copy_) return;
  call_cpu_.end();
  current_ = 0;
  slot_->finish(frame.id);
}

void Child::answer_later_one(Frame& frame) {
  ++unanswered_;
  auto core = std::make_shared<ReplyCore>(*this, frame.id);
  try {
    check_wanted(deadline_at_begin(frame.id), Delivery::sent);
    check_size(frame);
    Reader in = frame.reader();
    later_(in, core);
  } catch (const Error& error) {
    if (is_forked_copy_) throw;
    core->error(error);
  } catch (...) {
    if (is_forked_copy_ || thread_is_leaving()) throw;
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

void rethrow_as_remote() {
  if (thread_is_leaving()) throw;
  throw current_exception_as_remote();
}

}  // namespace detail

// ---- interface of a task ----

namespace this_call {

bool cancelled() noexcept {
  return remaining() == std::chrono::nanoseconds::zero();
}

std::chrono::nanoseconds remaining() noexcept {
  const detail::Child* child = detail::this_child;
  return child ? detail::time_until(child->deadline_of(child->current_call()))
               : std::chrono::nanoseconds::max();
}

std::uint64_t id() noexcept {
  return detail::this_child ? detail::this_child->current_call() : 0;
}

}  // namespace this_call

}  // namespace evparallel
