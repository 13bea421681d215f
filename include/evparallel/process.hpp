// process.hpp - one child as a typed process: messages in both directions, a pid, an exit status.
// Licence: see COPYING.  Manual: evparallel_process(3).
#pragma once

#include <evparallel/options.hpp>
#include <evparallel/snapshot.hpp>
#include <evparallel/task.hpp>

namespace evparallel {

namespace detail {

// A Process, independent of its types.  Its functions fail with std::logic_error in another thread
// than that of its loop, but for shutdown().
class ProcessInterface {
public:
  virtual std::shared_ptr<PipeInterface> pipe() = 0;
  virtual pid_t pid() const = 0;
  virtual void kill(int signum) = 0;
  virtual void terminate(std::chrono::milliseconds grace) = 0;
  virtual void detach() = 0;
  virtual void shutdown() noexcept = 0;  // its handle is gone.  Any thread
  virtual void set_on_start(Callback<void(pid_t)>) = 0;
  virtual void set_on_exit(Callback<void(const ExitStatus&)>) = 0;
  virtual const ExitStatus* exit_status() const = 0;  // null until the child has ended
  // Once, beside on_exit: called when exit_status() is set.
  virtual void wait_for_exit(Callback<void()>) = 0;

protected:
  ~ProcessInterface() = default;
};

EVPARALLEL_API std::shared_ptr<ProcessInterface> start_process(Reactor&, const Task&,
                                                               const Options&);

template <class R, class Parameters>
struct Conversation {
  static_assert(always_false<Parameters>,
                "evparallel: the task of a process must be void(Pipe<Out, Inc>): it reads what the "
                "parent writes");
};
template <class In, class Out>
struct Conversation<void, Types<Pipe<In, Out>>> {
  using Inc = Out;  // as the parent sees it
  using OutOfParent = In;
};
template <class In, class Out>
struct Conversation<evparallel::Task<void>, Types<Pipe<In, Out>>>
    : Conversation<void, Types<Pipe<In, Out>>> {};
template <class In, class Out>
struct Conversation<evparallel::Task<void>, Types<const Pipe<In, Out>&>>
    : Conversation<void, Types<Pipe<In, Out>>> {};
template <class In, class Out>
struct Conversation<void, Types<const Pipe<In, Out>&>> : Conversation<void, Types<Pipe<In, Out>>> {
};

template <class F>
using conversation_of =
    Conversation<typename Signature<F>::result, typename Signature<F>::parameters>;

}  // namespace detail

// The parent's handle; reads Inc, writes Out.  Move-only: dropping it closes the pipe, and the
// child gets Options::linger to end.  May outlive its Reactor and does nothing then.
//
// Order of callbacks, always: on_message*, at most one on_error for the end, on_end, on_exit.
template <class Inc, class Out>
class Process : public Pipe<Inc, Out> {
public:
  Process() noexcept = default;
  Process(std::shared_ptr<detail::ProcessInterface> core,
          const detail::PipeCodecs<Inc, Out>& codecs)
      : Pipe<Inc, Out>(core->pipe(), codecs), process_(std::move(core)) {}
  Process(Process&&) noexcept = default;
  Process& operator=(Process&& other) noexcept {
    if (this != &other) {
      shutdown();
      Pipe<Inc, Out>::operator=(std::move(other));
      process_ = std::move(other.process_);
    }
    return *this;
  }
  ~Process() { shutdown(); }

  pid_t pid() const { return process_ ? process_->pid() : 0; }  // 0 until on_start
  void on_start(Callback<void(pid_t)> callback) { process_->set_on_start(std::move(callback)); }
  // The last callback, called once.  Cause::not_started if there never was a child.
  void on_exit(Callback<void(const ExitStatus&)> callback) {
    process_->set_on_exit(std::move(callback));
  }

  // May be called before on_start: then it takes effect after the fork.  Has no effect on a child
  // that has ended.
  void kill(int signum) { process_->kill(signum); }
  // SIGTERM now, SIGKILL after `grace`; the timer is in the snapshot.
  void terminate(std::chrono::milliseconds grace = Options{}.grace) { process_->terminate(grace); }
  // Releases the handle: callbacks are called until the child ends.
  void detach() {
    process_->detach();
    process_.reset();
  }

  // For the other parts of the library.
  const std::shared_ptr<detail::ProcessInterface>& process_core() const noexcept {
    return process_;
  }

private:
  void shutdown() noexcept {
    if (process_) process_->shutdown();
    process_.reset();
  }
  std::shared_ptr<detail::ProcessInterface> process_;
};

// Forks a child and runs f(Pipe<Out, Inc>) in it.  The child lives until both directions are closed
// and all is written; see Pipe for who closes them.  If f is a coroutine, Task<void>, the child ends
// when it does.  Codecs: of Inc, then of Out; Io if none is
// named.  If f is in a library that was loaded after the snapshot was taken, on_error receives
// Error{unknown_function}.
// Fails: Error{no_snapshot}, Error{spawn_failed} (no descriptors); std::logic_error for a callable
// that cannot be sent.
template <class IncIo = DefaultIo, class OutIo = DefaultIo, class F>
[[nodiscard]] auto process(Reactor& reactor, F f, const Options& options = {}) {
  using C = detail::conversation_of<F>;
  using Inc = typename C::Inc;
  using Out = typename C::OutOfParent;
  using IncCodec = detail::checked_codec_t<IncIo, Inc>;
  using OutCodec = detail::checked_codec_t<OutIo, Out>;
  using Result = typename detail::Signature<F>::result;
  detail::Task::Entry entry;
  if constexpr (detail::is_coroutine<Result>)
    entry = &detail::CoroutineEntry<Result>::template converse<F, OutCodec, IncCodec, Out, Inc>;
  else
    entry = &detail::process_entry<F, OutCodec, IncCodec, Out, Inc>;
  detail::Task task = detail::make_task(f, entry, detail::takes_descriptors<Inc, IncCodec>);
  return Process<Inc, Out>(detail::start_process(reactor, task, options),
                           detail::pipe_codecs<Inc, Out, IncCodec, OutCodec>);
}

// The same with codecs that are templates, process<RawIo>(...), or one of them.
template <template <class> class IncIo, template <class> class OutIo = Io, class F>
[[nodiscard]] auto process(Reactor& reactor, F f, const Options& options = {}) {
  return process<detail::TemplateIo<IncIo>, detail::TemplateIo<OutIo>>(reactor, std::move(f),
                                                                       options);
}
template <template <class> class IncIo, class OutIo, class F>
[[nodiscard]] auto process(Reactor& reactor, F f, const Options& options = {}) {
  return process<detail::TemplateIo<IncIo>, OutIo>(reactor, std::move(f), options);
}
template <class IncIo, template <class> class OutIo, class F>
[[nodiscard]] auto process(Reactor& reactor, F f, const Options& options = {}) {
  return process<IncIo, detail::TemplateIo<OutIo>>(reactor, std::move(f), options);
}

}  // namespace evparallel
