// pipe.cpp - the life of a pipe: reading, writing, and its end.
// Licence: see COPYING.
#include <evparallel/pipe.hpp>

#include "pipe_core.hpp"
#include "remote_error.hpp"

#include <stdexcept>

namespace evparallel {

namespace detail {

namespace {

// Frames of one callback are gathered up to here.
constexpr std::size_t gather_limit = 256 * 1024;

}  // namespace

PipeCore::PipeCore(const std::shared_ptr<Loop>& loop, Channel&& channel, std::size_t high_water,
                   LastWord last_word, PipeOwner* owner)
    : loop_(loop),
      channel_(std::move(channel)),
      high_water_(high_water),
      owner_(owner),
      last_word_(last_word) {
  read_event_.set<&PipeCore::on_readable>(*loop_, channel_.fd(), EV_READ | EV_PERSIST, this);
  attach(*loop_);
}

// ---- out ----

bool PipeCore::send(Writer& message) {
  if (channel_.finished()) throw std::logic_error("evparallel: send on a pipe after its close()");
  if (channel_.out_dead() || !loop_->alive()) {
    tell_closed();
    return true;
  }
  put(FrameKind::message, 0, message);
  if (channel_.queued() <= high_water_) return true;
  above_mark_ = true;
  return false;
}

// Where what the other side wrote is still to be read, its end tells by itself.
void PipeCore::tell_closed() {
  if (!in_ended_ || !loop_->alive() || std::exchange(closed_told_, true)) return;
  loop_->defer([self = shared_from_this()] {
    self->fail_end(Error(Errc::closed, "closed: the other side of the pipe is gone"));
  });
}

void PipeCore::put(FrameKind kind, std::uint64_t id, Writer& message, Leave leave,
                   Channel::Message which) {
  loop_->lend(message);
  channel_.put(kind, id, message, which);
  schedule_flush(leave);
}

void PipeCore::close() {
  if (channel_.finished()) return;
  channel_.finish();
  schedule_flush(Leave::at_once);
  // With its own direction closed, a side that takes no messages only waits for the end.
  if (stopped_at_message_) continue_later();
}

void PipeCore::schedule_flush(Leave leave) {
  if (!loop_->alive() || (write_event_.peek() && write_event_->added()) || retry_.peek()) return;
  const bool waits =
      leave == Leave::with_the_next || (leave == Leave::with_the_turn && loop_->in_callback());
  if (!waits || channel_.queued() > gather_limit) return flush();
  if (std::exchange(flush_deferred_, true)) return;
  loop_->defer([self = shared_from_this()] { self->flush(); });
}

// Where something is left to be written.
void PipeCore::wait_to_write(Flow flow) {
  if (flow == Flow::again) {
    retry_.reset();
    if (!write_event_.peek())
      write_event_->set<&PipeCore::on_writable>(*loop_, channel_.fd(), EV_WRITE | EV_PERSIST, this);
    return write_event_->add();
  }
  leave_writing();
  if (flow != Flow::later) return;
  retry_->set<&PipeCore::on_writable>(*loop_, -1, 0, this);
  retry_->add_in(std::chrono::milliseconds(1));
}

void PipeCore::leave_writing() noexcept {
  if (write_event_.peek()) write_event_->remove();
  retry_.reset();
}

void PipeCore::on_writable() {
  const auto keep = shared_from_this();
  flush();
}

void PipeCore::flush() {
  flush_deferred_ = false;
  if (!loop_->alive() || !channel_.is_open()) return;
  const Flow flow = channel_.flush(Wait::no);
  wait_to_write(flow);
  if (flow == Flow::end) tell_closed();
  // Also where nobody reads any more: who waits for it with a paused pipe would never hear of the end.
  if (above_mark_ && channel_.queued() <= high_water_ / 2 && !channel_.finished()) {
    above_mark_ = false;
    loop_->defer([self = shared_from_this()] { self->handlers_->drain(); });
  }
  if (channel_.out_over()) check_over();
}

// ---- in ----

void PipeCore::start() {
  started_ = true;
  continue_later();
}

void PipeCore::set_on_message(Callback<void(Reader&)> callback) {
  handlers_->message.set(std::move(callback));
  if (stopped_at_message_) continue_later();
}

void PipeCore::pause() noexcept {
  paused_ = true;
  read_event_.remove();
}

void PipeCore::resume() {
  if (!std::exchange(paused_, false)) return;
  continue_later();
}

bool PipeCore::reading_wanted() const noexcept {
  return started_ && !paused_ && !stopped_at_message_ && !channel_.in_over() && channel_.is_open();
}

void PipeCore::watch_reading() {
  if (!loop_->alive()) return;
  if (reading_wanted())
    read_event_.add();
  else
    read_event_.remove();
}

// Frames that were received already wait for no event; and no callback is called from inside a call
// of the user.
void PipeCore::continue_later() {
  if (!loop_->alive() || !started_ || std::exchange(continue_deferred_, true)) return;
  loop_->defer([self = shared_from_this()] {
    self->continue_deferred_ = false;
    self->cut_frames();
    if (self->concluded()) self->drain_and_end();
  });
}

void PipeCore::on_readable() {
  const auto keep = shared_from_this();
  const Flow flow = channel_.receive(loop_->scratch(), Loop::scratch_size, Wait::no);
  if (flow == Flow::again) return;
  if (owner_) owner_->on_input();
  cut_frames();
}

void PipeCore::cut_frames() {
  deliver_held();
  try {
    Frame frame;
    while (!paused_ && !stopped_at_message_ && !loop_->interrupted() && channel_.is_open() &&
           channel_.next(frame))
      dispatch(frame);
  } catch (const Error& error) {
    return bad_stream(error);
  }
  channel_.keep();
  if (paused_ || stopped_at_message_ || !channel_.is_open()) return watch_reading();
  if (loop_->interrupted()) return continue_later();
  if (channel_.in_over() && !concluded()) on_end_of_file();
  watch_reading();
}

void PipeCore::dispatch(Frame& frame) {
  switch (frame.kind) {
    case FrameKind::message: return on_message_frame(frame);
    case FrameKind::end:
      clean_ = true;
      // In the parent the callbacks of the end wait for nothing either: the child may live on for
      // long.
      return end_in();
    case FrameKind::error:
      if (frame.id != 0) break;
      return on_task_error(read_error(frame.reader()));
    default: break;
  }
  loop_->call([&] {
    if (owner_) owner_->on_frame(frame);
  });
}

void PipeCore::on_task_error(const Error& error) {
  fail_end(owner_ ? owner_->on_task_error(error) : error);
}

void PipeCore::on_message_frame(Frame& frame) {
  if (frame.too_large)
    return tell_error(
        Error(Errc::too_large, "too large: a message above the limit of this side was skipped"));
  if (discard_ || clean_) return;
  if (!has_on_message()) {
    if (concluded() || channel_.finished()) return;
    stopped_at_message_ = true;
    rare_->held.assign(frame.body);
    rare_->held_along = channel_.take_along();
    return;
  }
  loop_->call([&] {
    Reader in = frame.reader();
    handlers_->message(in);
  });
}

void PipeCore::deliver_held() {
  if (!stopped_at_message_ || paused_) return;
  if (!has_on_message() && !channel_.finished() && !concluded() && !discard_) return;
  stopped_at_message_ = false;
  std::string body = std::move(rare_->held);
  Batch along = std::move(rare_->held_along);
  Frame frame{FrameKind::message, 0, body, &body};
  frame.descriptors = &along.descriptors;
  on_message_frame(frame);
}

// A stream that makes no sense is over, and so is the pipe: there is no way to find the next frame.
void PipeCore::bad_stream(const Error& error) {
  channel_.close();
  read_event_.remove();
  leave_writing();
  fail_end(error);
  on_end_of_file();
}

// For one message: the pipe goes on.
void PipeCore::tell_error(const Error& error) {
  loop_->call([&] {
    if (handlers_->error.is_set())
      handlers_->error(error);
    else if (!discard_)
      throw error;
  });
}

// For the end: told at most once, and on_end and on_exit tell it too.
void PipeCore::fail_end(const Error& error) {
  if (std::exchange(error_told_, true)) return;
  if (handlers_.peek()) loop_->call([&] { handlers_->error(error); });
}

// ---- the end ----

void PipeCore::on_end_of_file() {
  if (clean_ || in_ended_) {
    if (owner_ && last_word_ == LastWord::comes) owner_->on_closed();
    return check_over();
  }
  if (std::exchange(broken_, true)) return;
  if (channel_.torn())
    fail_end(Error(Errc::bad_message, "bad message: the stream ended inside a frame"));
  if (last_word_ == LastWord::comes) {
    if (owner_) owner_->on_broken();
    return;
  }
  fail_end(Error(Errc::closed, "closed: the other side ended without closing the pipe"));
  end_in();
}

void PipeCore::end_in() {
  if (std::exchange(in_ended_, true)) return;
  if (last_word_ == LastWord::none && !has_on_end()) close();
  if (handlers_.peek()) loop_->call([&] { handlers_->end(); });
  check_over();
}

void PipeCore::conclude(const Error& error) {
  rare_->conclusion = error;
  started_ = true;
  drain_and_end();
}

// All that a dead child has written is there already; an end of file may never come, since somebody
// else may hold the socket.
void PipeCore::drain_and_end() {
  const auto keep = shared_from_this();
  if (over_told_) return;
  for (;;) {
    cut_frames();
    if (paused_ || loop_->interrupted()) return;  // goes on at resume(), or in the next run()
    if (channel_.in_over() || !channel_.is_open()) break;
    if (channel_.receive(loop_->scratch(), Loop::scratch_size, Wait::no) == Flow::again) break;
  }
  if (channel_.torn())
    fail_end(Error(Errc::bad_message, "bad message: the stream ended inside a frame"));
  if (!clean_) fail_end(*rare_->conclusion);
  end_in();
  over_told_ = true;
  PipeOwner* owner = std::exchange(owner_, nullptr);
  shut();
  if (owner) owner->on_over();
}

// Without a last word to come, a pipe is over when both directions are.
void PipeCore::check_over() {
  if (!in_ended_ && !discard_) return;
  if (!channel_.out_over()) return;
  if (abandoned()) return shut();
  if (last_word_ == LastWord::comes || std::exchange(over_told_, true)) return;
  if (owner_) owner_->on_over();
}

void PipeCore::abandon() {
  owner_ = nullptr;
  const auto keep = shared_from_this();
  release_handlers();
  if (!loop_->alive() || !channel_.is_open()) return shut();
  discard_ = true;
  paused_ = false;
  channel_.finish();
  const Flow flow = channel_.flush(Wait::no);
  if (flow != Flow::again && flow != Flow::later) return shut();
  rare_->self = keep;
  loop_->hold();
  wait_to_write(flow);
  continue_later();
}

void PipeCore::release_handlers() noexcept {
  if (!handlers_.peek()) return;
  handlers_->message.release();
  handlers_->end.release();
  handlers_->error.release();
  handlers_->drain.release();
}

void PipeCore::shut() noexcept {
  owner_ = nullptr;                           // what a stop() has put off may still come here
  const auto keep = weak_from_this().lock();  // the last handle may hang on a callback of its own
  read_event_.remove();
  leave_writing();
  channel_.close();
  release_handlers();
  detach();
  if (!abandoned()) return;
  if (loop_->alive()) loop_->release();
  rare_->self.reset();
}

void PipeCore::loop_gone() noexcept {
  owner_ = nullptr;
  shut();
}

}  // namespace detail

}  // namespace evparallel
