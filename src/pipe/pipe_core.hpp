// pipe_core.hpp - a channel that a loop drives: what stands behind a Pipe, a Process and a Remote.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include "base/callback_slot.hpp"
#include "base/lazy.hpp"
#include "loop/event_loop.hpp"
#include "pipe/channel.hpp"

#include <evparallel/pipe.hpp>

#include <optional>

namespace evparallel {

// Who made the pipe, and hears what is not for its user.
class PipeObserver {
public:
  // The other side's task has failed as a whole.  Returns what is to be told of it.
  virtual Error on_task_error(const Error& error) { return error; }
  // The other side has died inside a frame; 0: it is not known of which call.
  virtual void on_torn(std::uint64_t /*call*/) {}
  virtual void on_frame(Frame&) {}  // of a kind that is not a pipe's own
  virtual void on_input() {}        // something has come; before any of it is told
  virtual void on_broken() {}       // end of file without an end; a last word may still come
  virtual void on_closed() {}       // end of file after an end; a last word is still to come
  virtual void on_over() {}         // both directions are over and all callbacks were called

protected:
  ~PipeObserver() = default;
};

namespace detail {

class PipeCore : public LoopObserver, public std::enable_shared_from_this<PipeCore> {
public:
  // In the parent a last word about the child follows the end of file; in the child none does.
  enum class SpawnOutcome : std::uint8_t { comes, none };
  // What a clean end of the other side does to this side's direction, where neither on_end nor
  // on_drain is set: a pipe of messages closes it, one of calls is for its owner to close.
  enum class OtherEnd : std::uint8_t { closes, is_left };

  PipeCore(const std::shared_ptr<Loop>&, Channel&&, std::size_t high_water, SpawnOutcome,
           PipeObserver*, OtherEnd = OtherEnd::closes);
  ~PipeCore() override = default;

  // ---- the user's side ----
  bool send(Writer&);  // one message.  False: above the high-water mark
  // In a child the end leaves in the next turn of its loop: what the task, or the callback that is
  // running, throws until then takes its place.
  void close();
  void pause() noexcept;
  void resume();
  std::size_t buffered() const noexcept { return channel_.queued(); }
  bool closed() const noexcept { return ending() || channel_.out_dead(); }
  const std::shared_ptr<Loop>& loop() const noexcept { return loop_; }

  void set_on_message(Callback<void(Reader&)>);
  void set_on_end(Callback<void()> c) { handlers_->end.set(std::move(c)); }
  void set_on_error(Callback<void(const Error&)> c) { handlers_->error.set(std::move(c)); }
  void set_on_drain(Callback<void()> c) { handlers_->drain.set(std::move(c)); }
  // One message could not be taken; the pipe goes on.
  void tell_error(const Error&);
  bool has_on_message() const noexcept {
    return handlers_.peek() && handlers_.peek()->message.is_set();
  }

  // ---- the owner's side ----
  // Also reads what came before the loop took over.
  void start();
  // Queues a frame and sees to it that it is written: at once, since who sends it may compute for
  // ever; or, inside a callback, together with all that this turn of the loop brings; or with what
  // follows it, and in the next turn if nothing does.
  // Fails: Errc::too_large.
  enum class FlushPolicy { at_once, with_the_turn, with_the_next };
  void put(FrameKind, std::uint64_t id, Writer&, FlushPolicy = FlushPolicy::at_once,
           Channel::Message = Channel::Message::taken);
  // The task has failed as a whole.  Behind an end that has left, nothing is said.
  void put_task_error(const Error&);
  // The end that close() has put off.
  void end_out();
  std::uint64_t bytes_put() const noexcept { return channel_.bytes_put(); }
  std::uint64_t bytes_written() const noexcept { return channel_.bytes_written(); }
  // Writes all that is queued, and waits for it: for a child that is about to end.
  void flush_blocking() { channel_.flush(Wait::yes); }
  // The last word has come: reads what is there, then on_error (where the end was not clean),
  // on_end, on_over.
  void conclude(const Error&);
  // Its owner is gone: callbacks are released, what is queued is written, then it is closed.
  void abandon();
  // Closes at once and releases all callbacks.
  void shut() noexcept;
  // Nothing will come or go any more that a call could hope for.
  bool usable() const noexcept {
    return channel_.is_open() && !broken_ && !channel_.out_dead() && !concluded();
  }

private:
  void on_loop_destroyed() noexcept override;
  void on_readable();
  void on_writable();
  void schedule_flush(FlushPolicy);
  void flush();
  void wait_to_write(IoResult);
  bool reading_wanted() const noexcept;
  void watch_reading();
  void continue_later();
  void cut_frames();
  void dispatch(Frame&);
  enum class Lost : bool { was_queued, is_sent };
  void tell_closed(Lost);
  void report_closed();
  void finish();
  bool closes_with_other() const noexcept;
  // Nothing is to be sent any more.
  bool ending() const noexcept { return closed_ || channel_.finished(); }
  void on_task_error(const Error&);
  void on_message_frame(Frame&);
  void deliver_held();
  void bad_stream(const Error&);
  void fail_end(const Error&);
  void on_end_of_file();
  void end_in();
  void drain_and_end();
  void check_over();
  void release_handlers() noexcept;
  void leave_writing() noexcept;

  // Those of a Pipe; a remote function has none.
  struct Handlers {
    CallbackSlot<void(Reader&)> message;
    CallbackSlot<void()> end;
    CallbackSlot<void(const Error&)> error;
    CallbackSlot<void()> drain;
  };
  // What most pipes do not come to, or at their end alone.
  struct Rare {
    std::string held;  // the first message, where nobody takes messages
    ReceivedFds held_along;
    std::optional<Error> conclusion;
    std::shared_ptr<PipeCore> self;  // abandoned, and still writing
  };
  bool has_on_end() const noexcept { return handlers_.peek() && handlers_.peek()->end.is_set(); }
  bool has_on_drain() const noexcept {
    return handlers_.peek() && handlers_.peek()->drain.is_set();
  }
  bool has_on_error() const noexcept {
    return handlers_.peek() && handlers_.peek()->error.is_set();
  }
  bool concluded() const noexcept { return rare_.peek() && rare_.peek()->conclusion; }
  bool abandoned() const noexcept { return rare_.peek() && rare_.peek()->self; }

  std::shared_ptr<Loop> loop_;
  Channel channel_;
  std::size_t high_water_;
  PipeObserver* owner_;
  Event read_event_;
  Lazy<Event> write_event_;
  Lazy<Event> retry_;  // where nothing tells when to write
  Lazy<Handlers> handlers_;
  Lazy<Rare> rare_;

  SpawnOutcome last_word_;
  OtherEnd other_end_;
  bool started_ = false;
  bool paused_ = false;
  bool stopped_at_message_ = false;  // nobody takes messages
  bool discard_ = false;
  bool clean_ = false;     // the other side said that it ended
  bool in_ended_ = false;  // on_end was told
  bool broken_ = false;
  bool error_told_ = false;
  bool closed_ = false;       // by close()
  bool end_put_off_ = false;  // and the other side does not know
  bool dropped_ = false;      // what was sent after the other side's end
  bool closed_told_ = false;
  bool over_told_ = false;
  bool above_mark_ = false;
  bool flush_deferred_ = false;
  bool continue_deferred_ = false;
};

}  // namespace detail

}  // namespace evparallel
