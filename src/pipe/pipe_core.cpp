// pipe_core.cpp - reading and writing of a pipe.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/pipe.hpp>

#include "pipe/pipe_core.hpp"

#include "base/no_memory.hpp"
#include "codec/remote_error.hpp"

#include <new>
#include <stdexcept>

namespace evparallel::detail {

namespace {

// Frames of one callback are gathered up to this number of bytes.
constexpr std::size_t gather_limit = 256 * 1024;

}  // namespace

PipeCore::PipeCore(const std::shared_ptr<Loop>& loop, Channel&& channel, std::size_t high_water,
                   ExitReport exit_report, PipeObserver* owner, OtherEnd other_end)
    : loop_(loop),
      channel_(std::move(channel)),
      high_water_(high_water),
      owner_(owner),
      exit_report_(exit_report),
      other_end_(other_end) {
  loop_->check_thread();
  read_event_.set<&PipeCore::on_readable>(*loop_, channel_.fd(), EV_READ | EV_PERSIST, this);
  register_with(*loop_);
}

// ---- out ----

DraftBuffer& PipeCore::drafts() {
  loop_->check_thread();
  return loop_->drafts();
}

std::size_t PipeCore::buffered() const {
  loop_->check_thread();
  return channel_.queued();
}

bool PipeCore::closed() const {
  loop_->check_thread();
  return is_dead();
}

bool PipeCore::send(Writer& message) {
  if (output_ != Output::open)
    throw std::logic_error("evparallel: send() was called on a pipe after close()");
  if (is_dead() || !loop_->alive()) {
    report_closed_later(Lost::is_sent);
    return true;
  }
  put(FrameKind::message, 0, message);
  if (channel_.out_dead()) report_closed_later(Lost::is_sent);
  if (channel_.queued() <= high_water_) return true;
  above_mark_ = true;
  return false;
}

// If frames of the other side are still to be read, they are followed by its end, and nothing is
// reported here.
void PipeCore::report_closed_later(Lost what) noexcept {
  if (!input_over() || !loop_->alive()) return;
  try {
    if (what == Lost::is_sent) rare_->dropped = true;
    if (rare_->closed_reported) return;
    loop_->defer([self = shared_from_this()] { self->report_closed(); });
    rare_->closed_reported = true;
  } catch (const std::bad_alloc&) {
    return;  // the end of the other side says it, too
  }
}

// A frame that is sent after the other side's end is always reported as lost.  A frame that was
// queued before may be lost as well; that is reported only to on_error, because the end of the
// other side says it, too.
void PipeCore::report_closed() {
  rare_->closed_reported = has_on_error() || rare_->dropped;
  if (!rare_->closed_reported || std::exchange(error_reported_, true)) return;
  const Error error(Errc::closed, "closed: the other side of the pipe no longer sends or receives");
  report_error(error);
}

void PipeCore::put(FrameKind kind, std::uint64_t id, Writer& message, FlushPolicy leave,
                   Channel::Message which) {
  loop_->drafts().lend(message);
  channel_.put(kind, id, message, which);
  schedule_flush(leave);
}

void PipeCore::put_task_error(const Error& error) {
  if (output_ == Output::closing) output_ = Output::closed;
  if (channel_.finished()) return;
  Writer out;
  write_error(out, error);
  put(FrameKind::error, 0, out);
}

void PipeCore::close() {
  loop_->check_thread();
  if (output_ != Output::open) return;
  output_ = Output::closed;
  if (channel_.finished()) return;
  output_ = Output::closing;
  if (exit_report_ == ExitReport::comes)
    end_out();
  else if (loop_->alive())
    loop_->defer_or_retry(*this, [self = shared_from_this()] { self->end_out(); });
  // A side that takes no messages and has closed its own direction only waits for the end.
  if (stopped_at_message_) continue_later();
}

void PipeCore::end_out() {
  if (output_ != Output::closing) return;
  output_ = Output::closed;
  finish();
}

void PipeCore::finish() {
  channel_.finish();
  schedule_flush(FlushPolicy::at_once);
}

void PipeCore::schedule_flush(FlushPolicy leave) {
  if (!loop_->alive() || written_ == IoResult::would_block || written_ == IoResult::retry_later)
    return;
  const bool waits = leave == FlushPolicy::with_the_next ||
                     (leave == FlushPolicy::with_the_turn && loop_->in_callback());
  if (!waits || channel_.queued() > gather_limit) return flush();
  if (std::exchange(flush_deferred_, true)) return;
  loop_->defer_or_retry(*this, [self = shared_from_this()] { self->flush(); });
}

void PipeCore::on_writable() {
  const auto keep = shared_from_this();
  flush();
}

void PipeCore::flush() noexcept {
  flush_deferred_ = false;
  if (!loop_->alive() || !channel_.is_open()) return;
  const bool only_end = channel_.finished() && channel_.queued() <= frame_header_size;
  written_ = channel_.flush(Wait::no);
  update_interest();
  if (written_ == IoResult::closed && !only_end) report_closed_later(Lost::was_queued);
  // on_drain is called even if the other side reads no more: a user that waits for it with a paused
  // pipe would otherwise never receive the end.
  if (above_mark_ && channel_.queued() <= high_water_ / 2 && !ending()) {
    above_mark_ = false;
    drain_deferred_ = true;
    loop_->defer_or_retry(*this, [self = shared_from_this()] { self->call_drain(); });
  }
  if (channel_.out_over()) check_over();
}

// ---- in ----

void PipeCore::start() {
  if (input_ == Input::not_started) input_ = Input::open;
  continue_later();
}

void PipeCore::set_on_message(Callback<void(Reader&)> callback) {
  loop_->check_thread();
  if (has_next())
    throw std::logic_error(
        "evparallel: on_message() was called on a pipe while a coroutine waits in next(); use one "
        "of the two");
  handlers_->message.set(std::move(callback));
  if (std::exchange(braked_, false)) return resume();
  if (stopped_at_message_) continue_later();
}

void PipeCore::pause() {
  loop_->check_thread();
  paused_ = true;
  update_interest();
}

void PipeCore::resume() {
  loop_->check_thread();
  if (!std::exchange(paused_, false)) return;
  continue_later();
}

bool PipeCore::reading_wanted() const noexcept {
  return input_ != Input::not_started && !paused_ && !stopped_at_message_ && !channel_.in_over() &&
         channel_.is_open();
}

// Waits for what the state calls for: the only place that adds events.  An event that the loop
// refuses, for lack of memory or of room in the kernel, is added later.
void PipeCore::update_interest() noexcept {
  if (!loop_->alive()) return;
  try {
    watch();
  } catch (const std::bad_alloc&) {
    loop_->retry_later();
  } catch (...) {
    loop_->call([] { throw; });
    loop_->retry_later();
  }
}

void PipeCore::watch() {
  if (const bool wanted = reading_wanted(); wanted != read_event_.added())
    wanted ? read_event_.add() : read_event_.remove();
  const bool writing = written_ == IoResult::would_block && channel_.is_open();
  if (writing && !write_event_.peek())
    write_event_->set<&PipeCore::on_writable>(*loop_, channel_.fd(), EV_WRITE | EV_PERSIST, this);
  if (write_event_.peek() && writing != write_event_->added())
    writing ? write_event_->add() : write_event_->remove();
  if (written_ != IoResult::retry_later || !channel_.is_open()) return retry_.reset();
  if (retry_.peek() && retry_->added()) return;
  retry_->set<&PipeCore::on_writable>(*loop_, -1, 0, this);
  retry_->add_in(std::chrono::milliseconds(1));
}

// Before the descriptor goes, so does what waits for it: a process that the program has forked may
// hold the same socket, and the kernel would go on reporting it.
void PipeCore::close_channel() noexcept {
  read_event_.remove();
  if (write_event_.peek()) write_event_->remove();
  retry_.reset();
  channel_.close();
}

// No event announces frames that were received already; and no callback is called from inside a
// call of the user.
void PipeCore::continue_later() noexcept {
  if (!loop_->alive() || input_ == Input::not_started || std::exchange(continue_deferred_, true))
    return;
  loop_->defer_or_retry(*this, [self = shared_from_this()] { self->go_on(); });
}

void PipeCore::go_on() {
  continue_deferred_ = false;
  read_frames();
  if (concluded()) drain_and_end();
}

// What was deferred is due; so are events that could not be added.
void PipeCore::retry() {
  const auto keep = shared_from_this();
  if (owner_) owner_->on_retry();
  if (output_ == Output::closing && exit_report_ == ExitReport::none) end_out();
  if (flush_deferred_) flush();
  if (drain_deferred_) call_drain();
  if (continue_deferred_)
    go_on();
  else if (concluded())
    drain_and_end();
  update_interest();
}

void PipeCore::on_readable() {
  const auto keep = shared_from_this();
  if (concluded()) return drain_and_end();
  const IoResult flow = channel_.receive(loop_->scratch(), Loop::scratch_size, Wait::no);
  if (flow == IoResult::would_block) return;
  loop_->expect_input(read_event_);
  if (owner_) owner_->on_input();
  read_frames();
}

void PipeCore::read_frames() {
  deliver_held();
  try {
    Frame frame;
    while (!paused_ && !stopped_at_message_ && !loop_->interrupted() && channel_.is_open() &&
           channel_.next(frame))
      dispatch(frame);
    channel_.keep();
  } catch (const Error& error) {
    return bad_stream(error);
  } catch (const std::bad_alloc&) {  // for bytes that are in no other memory by now
    return bad_stream(no_memory(Delivery::not_sent));
  }
  if (paused_ || stopped_at_message_ || !channel_.is_open()) return update_interest();
  if (loop_->interrupted()) return continue_later();
  if (channel_.in_over() && !concluded()) on_end_of_file();
  update_interest();
}

void PipeCore::dispatch(Frame& frame) {
  switch (frame.kind) {
    case FrameKind::message:
      if (only_answers_come()) refuse_kind(frame);
      return on_message_frame(frame);
    case FrameKind::end:
      // Also in the parent on_end is called at once, because the child may live on for long.
      end_in(Input::ended_cleanly);
      return end_child_without_answers();
    case FrameKind::error:
      if (frame.id != 0) break;
      if (input_ == Input::ended_cleanly) return;  // on_end was called
      on_task_error(
          error_or_no_memory(Delivery::not_sent, [&] { return read_error(frame.reader()); }));
      return end_child_without_answers();
    case FrameKind::value: break;
    default:
      if (exit_report_ == ExitReport::comes) refuse_kind(frame);
  }
  loop_->call([&] {
    if (owner_) owner_->on_frame(frame);
  });
}

// A child that sends no more answers gets its time to end, because its calls end with it.
void PipeCore::end_child_without_answers() {
  if (only_answers_come() && owner_) owner_->on_broken();
}

void PipeCore::refuse_kind(const Frame& frame) {
  throw Error(Errc::bad_message, "bad message: a child sends no frame of the kind " +
                                     std::to_string(static_cast<unsigned>(frame.kind)) + " here");
}

void PipeCore::on_task_error(const Error& error) {
  fail_end(owner_ ? owner_->on_task_error(error) : error);
}

void PipeCore::on_message_frame(Frame& frame) {
  if (frame.skipped == Frame::Skipped::no_memory) return report_error(no_memory("for a message"));
  if (frame.skipped == Frame::Skipped::too_large)
    return report_error(error_or_no_memory(Delivery::not_sent, [] {
      return Error(Errc::too_large,
                   "too large: a received message exceeds the limit of this side and was skipped");
    }));
  if (discard_ || input_ == Input::ended_cleanly) return;
  if (!has_on_message() && has_next()) {
    Next next = take_next();
    return loop_->call([&] {
      Reader in = frame.reader();
      next(&in, nullptr);
    });
  }
  if (!has_on_message()) {
    if (concluded() || ending() || drops_unread_) return;
    try {
      return hold_message(frame);
    } catch (const std::bad_alloc&) {
      return report_error(no_memory("for a message"));
    }
  }
  loop_->call([&] {
    Reader in = frame.reader();
    handlers_->message(in);
  });
}

void PipeCore::hold_message(Frame& frame) {
  Reader in = frame.reader();
  rare_->held = in.take_rest();
  rare_->held_along = channel_.take_along();
  stopped_at_message_ = true;
}

void PipeCore::deliver_held() {
  if (!stopped_at_message_ || paused_) return;
  if (!has_on_message() && !has_next() && !ending() && !concluded() && !discard_ && !drops_unread_)
    return;
  stopped_at_message_ = false;
  std::string body = std::move(rare_->held);
  ReceivedFds along = std::move(rare_->held_along);
  Frame frame{FrameKind::message, 0, body, &body};
  frame.descriptors = &along.descriptors;
  frame.max_decoded = channel_.max_decoded();
  on_message_frame(frame);
}

// After a stream that makes no sense there is no way to find the next frame, so the pipe is over.
void PipeCore::bad_stream(const Error& error) {
  close_channel();
  on_task_error(error);
  on_end_of_file();
}

// For one message: the pipe goes on.
void PipeCore::report_error(const Error& error) {
  loop_->call([&] {
    if (has_next())
      take_next()(nullptr, &error);
    else if (handlers_->error.is_set())
      handlers_->error(error);
    else if (!discard_)
      throw error;
  });
}

// ---- coroutines ----

void PipeCore::wait_for_message(Next next) {
  loop_->check_thread();
  if (has_on_message() || has_next())
    throw std::logic_error(
        has_next() ? "evparallel: two coroutines wait in next() for a message of the same pipe"
                   : "evparallel: next() was called on a pipe that has an on_message; use one of "
                     "the two");
  rare_->next = std::move(next);
  braked_ = false;
  if (paused_) return resume();
  if (stopped_at_message_) continue_later();
}

// The brake: the pipe reads no further until the next wait.
PipeCore::Next PipeCore::take_next() noexcept {
  Next next = std::move(rare_->next);
  if (drops_unread_ || input_over()) return next;
  braked_ = true;
  pause();
  return next;
}

void PipeCore::stop_waiting_for_message() noexcept {
  if (loop_->in_its_thread()) {
    if (has_next()) take_next();
    return;
  }
  loop_->call_in_its_thread([self = shared_from_this()] {
    if (self->has_next()) self->take_next();
  });
}

void PipeCore::wait_for_room(Callback<void()> callback) {
  loop_->check_thread();
  rare_->awaiting_room.push_back(std::move(callback));
}

void PipeCore::drop_unread() {
  loop_->check_thread();
  drops_unread_ = true;
  if (input_over() && rare_->next_had_end) close();
  if (paused_) return resume();
  if (stopped_at_message_) continue_later();
}

void PipeCore::call_drain() {
  drain_deferred_ = false;
  if (handlers_.peek()) loop_->call([&] { handlers_->drain(); });
  if (!rare_.peek()) return;
  std::vector<Callback<void()>> all = std::move(rare_->awaiting_room);
  for (Callback<void()>& one : all) loop_->call([&] { one(); });
}

}  // namespace evparallel::detail
