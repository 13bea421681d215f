// pipe.hpp - typed messages in both directions, in order; the same class on both sides.
// Licence: see COPYING.  Manual: evparallel_process(3).
#pragma once

#include <evparallel/detail/draft.hpp>
#include <evparallel/io.hpp>
#include <evparallel/reactor.hpp>

#include <memory>
#include <optional>

namespace evparallel {

namespace detail {

// A Pipe, independent of its types.  Its functions fail with std::logic_error in another thread than
// that of its loop, but for stop_waiting_for_message().
class PipeInterface {
public:
  virtual DraftBuffer& drafts() = 0;
  virtual bool send(Writer&) = 0;
  virtual void close() = 0;
  virtual void pause() = 0;
  virtual void resume() = 0;
  virtual std::size_t buffered() const = 0;
  virtual bool closed() const = 0;
  virtual void set_on_message(Callback<void(Reader&)>) = 0;
  virtual void set_on_end(Callback<void()>) = 0;
  virtual void set_on_error(Callback<void(const Error&)>) = 0;
  virtual void set_on_drain(Callback<void()>) = 0;
  // Reports that one message could not be read; the pipe goes on.
  virtual void report_error(const Error&) = 0;

  // What a coroutine awaits, each once.  Called with a message, with an error, or, at the end, with
  // neither; then the pipe is paused.
  // Fails: std::logic_error if on_message is set, or another one waits.
  using Next = Callback<void(Reader*, const Error*)>;
  virtual void wait_for_message(Next) = 0;
  virtual void stop_waiting_for_message() noexcept = 0;
  // Called as on_drain is, and when the pipe ends.
  virtual void wait_for_room(Callback<void()>) = 0;
  // The input has ended: wait_for_message() must not be called.
  virtual bool input_over() const noexcept = 0;
  // Reads on, and drops messages that nobody takes.
  virtual void drop_unread() = 0;

protected:
  ~PipeInterface() = default;
};

// The codecs of a pipe are chosen where it is made and are not part of its type: a task has a
// Pipe<In, Out> with any codecs.
template <class In, class Out>
struct PipeCodecs {
  In (*get)(Reader&);
  void (*put)(Writer&, const Out&);
  void (*put_moved)(Writer&, Out&&);
};

template <class In, class Out, class InCodec, class OutCodec>
constexpr PipeCodecs<In, Out> pipe_codecs{
    [](Reader& in) { return decode<InCodec, In>(in); },
    [](Writer& out, const Out& value) { encode<OutCodec>(out, value); },
    [](Writer& out, Out&& value) { encode<OutCodec>(out, std::move(value)); },
};

}  // namespace detail

// Reads `In`, writes `Out`.  A cheap handle that may be copied, so that a callback can hold one;
// the pipe itself ends with its Process (in the parent) or with the child.
//
// Order of callbacks, always: on_message*, on_end.  on_error comes between them, once for a broken
// end, and for each message that could not be read (bad_message, too_large, overloaded), after
// which the pipe goes on; without an on_error such a message ends Reactor::run() with the error.
// Callbacks are released when the pipe has ended, so that a callback that holds the pipe is no
// leak.
//
// The same rule holds on both sides: when the other side's clean end is handled, and neither on_end
// nor on_drain is set here, this direction closes behind what is queued.
template <class In, class Out>
class Pipe {
public:
  using in_type = In;
  using out_type = Out;

  Pipe() noexcept = default;
  Pipe(std::shared_ptr<detail::PipeInterface> core,
       const detail::PipeCodecs<In, Out>& codecs) noexcept
      : core_(std::move(core)), codecs_(&codecs) {}

  // Always accepts the message.  Returns false if more than Options::high_water bytes wait;
  // on_drain says when to go on.  If this direction has ended with that of the other side, the
  // message is dropped, and that is reported once as Error{closed}: to on_error or, without one, as
  // an exception of Reactor::run().  A value that is moved in is sent without a copy if its codec
  // can do that.
  // Fails: Error{bad_message} or Error{too_large}, nothing was sent; std::logic_error after
  // close().
  bool send(const Out& value) const {
    detail::Draft draft(core_->drafts());
    codecs_->put(*draft, value);
    return core_->send(*draft);
  }
  bool send(Out&& value) const {
    detail::Draft draft(core_->drafts());
    codecs_->put_moved(*draft, std::move(value));
    return core_->send(*draft);
  }

  // This side sends no more messages; the other side's on_end is called.
  void close() const { core_->close(); }

  // Until it is set, the first message waits, and so does the writer when the kernel's buffer is
  // full.
  void on_message(Callback<void(In)> callback) const {
    if (!callback) return core_->set_on_message(nullptr);
    core_->set_on_message([core = core_.get(), get = codecs_->get,
                           callback = std::move(callback)](Reader& in) mutable {
      std::optional<In> value;
      try {
        value.emplace(get(in));
      } catch (const Error& error) {
        return core->report_error(error);
      }
      callback(std::move(*value));
    });
  }
  // The other side sends no more messages.  A callback that does nothing keeps this direction open.
  void on_end(Callback<void()> callback) const { core_->set_on_end(std::move(callback)); }
  void on_error(Callback<void(const Error&)> callback) const {
    core_->set_on_error(std::move(callback));
  }
  // Called when, after send() has returned false, at most half of Options::high_water is left to
  // write.
  void on_drain(Callback<void()> callback) const { core_->set_on_drain(std::move(callback)); }

  // Stops reading, so that the writer has to wait.  on_end waits, too.
  void pause() const { core_->pause(); }
  void resume() const { core_->resume(); }

  std::size_t buffered() const { return core_->buffered(); }  // bytes not yet written
  bool closed() const { return core_->closed(); }             // send() makes no sense any more

  explicit operator bool() const noexcept { return core_ != nullptr; }

  // For the other parts of the library.
  const std::shared_ptr<detail::PipeInterface>& core() const noexcept { return core_; }
  const detail::PipeCodecs<In, Out>& codecs() const noexcept { return *codecs_; }

private:
  std::shared_ptr<detail::PipeInterface> core_;
  const detail::PipeCodecs<In, Out>* codecs_ = nullptr;
};

}  // namespace evparallel
