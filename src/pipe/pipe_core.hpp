// pipe_core.hpp - a channel on a loop: the implementation of a Pipe, a Process and a Remote.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include "base/callback_slot.hpp"
#include "base/lazy.hpp"
#include "loop/event_loop.hpp"
#include "pipe/channel.hpp"

#include <evparallel/pipe.hpp>

#include <optional>
#include <vector>

namespace evparallel::detail {

// The callbacks to the object that made the pipe, for events that are not for its user.
class PipeObserver {
public:
  // The task of the other side has failed as a whole.  Returns the error to report.
  virtual Error on_task_error(const Error& error) { return error; }
  // The other side has died inside a frame; 0: its call is not known.
  virtual void on_torn(std::uint64_t /*call*/) {}
  virtual void on_frame(Frame&) {}  // of a kind that is not for the pipe itself
  virtual void on_input() {}        // bytes have come; called before any of them is delivered
  virtual void on_broken() {}       // end of file without an end frame; a spawn outcome may come
  virtual void on_closed() {}       // end of file after an end frame; the spawn outcome will come
  virtual void on_over() {}         // both directions have ended and all callbacks were called
  virtual void on_retry() {}        // do again what there was no memory for: LoopObserver::retry()

protected:
  ~PipeObserver() = default;
};

class PipeCore final : public PipeInterface,
                       public LoopObserver,
                       public std::enable_shared_from_this<PipeCore> {
public:
  // In the parent the spawn outcome follows the end of file; in a child there is none.
  enum class ExitReport : std::uint8_t { comes, none };
  // What a clean end of the other side does to this side's direction if neither on_end nor on_drain
  // is set: a pipe of messages closes it; a pipe of calls leaves that to its observer.
  enum class OtherEnd : std::uint8_t { closes, is_left };

  PipeCore(const std::shared_ptr<Loop>&, Channel&&, std::size_t high_water, ExitReport,
           PipeObserver*, OtherEnd = OtherEnd::closes);
  ~PipeCore() override = default;

  // ---- interface of the user ----
  bool send(Writer&) override;  // one message.  False: above the high-water mark
  // In a child the end frame is sent in the next iteration of its loop: if the task, or the
  // callback that is running, throws before that, its error is sent instead.
  void close() override;
  void pause() override;
  void resume() override;
  std::size_t buffered() const override;
  bool closed() const override;
  DraftBuffer& drafts() override;

  void set_on_message(Callback<void(Reader&)>) override;
  void set_on_end(Callback<void()> c) override { handlers().end.set(std::move(c)); }
  void set_on_error(Callback<void(const Error&)> c) override { handlers().error.set(std::move(c)); }
  void set_on_drain(Callback<void()> c) override { handlers().drain.set(std::move(c)); }
  void report_error(const Error&) override;
  void wait_for_message(Next) override;
  void stop_waiting_for_message() noexcept override;
  void wait_for_room(Callback<void()>) override;
  bool input_over() const noexcept override { return input_ >= Input::ended; }
  void drop_unread() override;
  bool has_on_message() const noexcept {
    return handlers_.peek() && handlers_.peek()->message.is_set();
  }

  // ---- interface of the observer ----
  const std::shared_ptr<Loop>& loop() const noexcept { return loop_; }
  // Also reads what came before the loop took over.
  void start();
  // Queues a frame and schedules its write.  at_once: now, because the sender may compute for ever;
  // with_the_turn: inside a callback, together with all frames of this iteration of the loop;
  // with_the_next: with the frame that follows, or in the next iteration if none follows.
  // Fails: Errc::too_large.
  enum class FlushPolicy { at_once, with_the_turn, with_the_next };
  void put(FrameKind, std::uint64_t id, Writer&, FlushPolicy = FlushPolicy::at_once,
           Channel::Message = Channel::Message::taken);
  // Reports that the task has failed as a whole.  Does nothing after the end frame.
  void put_task_error(const Error&);
  // Sends the end frame that close() has put off.
  void end_out();
  std::uint64_t bytes_put() const noexcept { return channel_.bytes_put(); }
  std::uint64_t bytes_written() const noexcept { return channel_.bytes_written(); }
  // Writes all queued frames, and waits for that: for a child that is about to end.
  void flush_blocking() { channel_.flush(Wait::yes); }
  // Takes the memory that conclude() needs.
  void prepare_conclusion() { static_cast<void>(*rare_); }
  // The spawn outcome has come: reads what is there, then calls on_error (if the end was not
  // clean), on_end, on_over.  Requires: prepare_conclusion().
  void conclude(const Error&);
  // The observer is gone: releases callbacks, writes what is queued, and then closes.
  void detach();
  // Closes at once and releases all callbacks.
  void abort() noexcept;
  // The id of a frame that has come in part, and whose rest is on its way; 0: there is none.
  std::uint64_t id_under_way() const noexcept {
    return channel_.in_over() ? 0 : channel_.torn_id();
  }
  // A call can still be sent and answered.
  bool usable() const noexcept {
    return channel_.is_open() && (input_ == Input::open || input_ == Input::not_started) &&
           !channel_.out_dead() && !concluded();
  }
  // Writes at once what waits for the end of this turn of the loop.
  void flush_now() {
    if (flush_deferred_) flush();
  }

private:
  // not_started: what comes waits in the socket; broken: end of file without an end frame, and the
  // exit report is to come; ended: on_end was called; ended_cleanly: because of an end frame.
  enum class Input : std::uint8_t { not_started, open, broken, ended, ended_cleanly };
  // closing: close() was called, and the end frame is to be sent.
  enum class Output : std::uint8_t { open, closing, closed };

  void on_loop_destroyed() noexcept override;
  void retry() override;
  void on_readable();
  void on_writable();
  void schedule_flush(FlushPolicy);
  void flush() noexcept;
  bool reading_wanted() const noexcept;
  void update_interest() noexcept;
  void watch();
  void close_channel() noexcept;
  void continue_later() noexcept;
  void go_on();
  void hold_message(Frame&);
  void read_frames();
  void dispatch(Frame&);
  enum class Lost : bool { was_queued, is_sent };
  void report_closed_later(Lost) noexcept;
  void report_closed();
  void finish();
  bool closes_with_other() const noexcept;
  // This is the parent's side of a remote function, whose child sends nothing but answers.
  bool only_answers_come() const noexcept {
    return exit_report_ == ExitReport::comes && other_end_ == OtherEnd::is_left;
  }
  void end_child_without_answers();
  [[noreturn]] static void refuse_kind(const Frame&);
  // Nothing is sent any more.
  bool ending() const noexcept { return output_ != Output::open || channel_.finished(); }
  void on_task_error(const Error&);
  void on_message_frame(Frame&);
  void deliver_held();
  void bad_stream(const Error&);
  void fail_end(const Error&);
  void on_end_of_file();
  void end_in(Input);
  void drain_and_end();
  bool drain();
  void check_over();
  void release_handlers() noexcept;
  void release_awaiting() noexcept;

  // The callbacks of a Pipe; a remote function has none.
  struct Handlers {
    CallbackSlot<void(Reader&)> message;
    CallbackSlot<void()> end;
    CallbackSlot<void(const Error&)> error;
    CallbackSlot<void()> drain;
  };
  // What most pipes never need, or only at their end.
  struct Rare {
    std::string held;  // the first message, if on_message is not set
    ReceivedFds held_along;
    std::optional<Error> conclusion;
    std::size_t input_left = 0;      // after it: what a dead child has written
    std::shared_ptr<PipeCore> self;  // abandoned, and still writing
    bool dropped = false;            // frames were sent after the other side's end
    bool closed_reported = false;    // and Errc::closed was reported for that
    Next next;                       // a coroutine that waits for a message
    bool next_had_end = false;       // and one that has received the end
    std::vector<Callback<void()>> awaiting_room;
  };
  // For the user.
  Handlers& handlers() {
    loop_->check_thread();
    return *handlers_;
  }
  bool has_next() const noexcept { return rare_.peek() && rare_.peek()->next; }
  Next take_next() noexcept;
  void call_drain();
  bool has_on_end() const noexcept { return handlers_.peek() && handlers_.peek()->end.is_set(); }
  bool has_on_drain() const noexcept {
    return handlers_.peek() && handlers_.peek()->drain.is_set();
  }
  bool has_on_error() const noexcept {
    return handlers_.peek() && handlers_.peek()->error.is_set();
  }
  bool concluded() const noexcept { return rare_.peek() && rare_.peek()->conclusion; }
  bool is_dead() const noexcept { return ending() || channel_.out_dead(); }
  bool is_detached() const noexcept { return rare_.peek() && rare_.peek()->self; }

  std::shared_ptr<Loop> loop_;
  Channel channel_;
  std::size_t high_water_;
  PipeObserver* owner_;
  Event read_event_;
  Lazy<Event> write_event_;
  Lazy<Event> retry_;  // if no event says when to write
  Lazy<Handlers> handlers_;
  Lazy<Rare> rare_;

  ExitReport exit_report_;
  OtherEnd other_end_;
  Input input_ = Input::not_started;
  Output output_ = Output::open;
  IoResult written_ = IoResult::done;  // of the last write
  bool paused_ = false;
  bool stopped_at_message_ = false;  // on_message is not set
  bool braked_ = false;              // paused since a coroutine has a message
  bool drops_unread_ = false;        // a coroutine waits for the end alone
  bool discard_ = false;             // abandoned: messages are dropped
  bool error_reported_ = false;
  bool over_reported_ = false;
  bool above_mark_ = false;
  bool flush_deferred_ = false;
  bool drain_deferred_ = false;
  bool continue_deferred_ = false;
};

}  // namespace evparallel::detail
