// task.hpp - a callable with its codecs in the form that is sent, and its use in the child.
// Licence: see COPYING.  Manual: evparallel_run(3).
//
// Parent and child are one image at the same addresses.  So a task is sent as the address of its
// entry, which is instantiated here for each type of callable and its codecs, and the bytes of the
// callable.
#pragma once

#include <evparallel/callable.hpp>
#include <evparallel/callback.hpp>
#include <evparallel/pipe.hpp>

#include <chrono>
#include <exception>
#include <vector>

namespace evparallel {

namespace detail {

// One call of an asynchronous task, independent of the type of its answer.
class ReplyInterface {
public:
  // Return false if the call was answered before: then nothing is sent.
  virtual bool value(Writer&) = 0;
  virtual bool error(const Error&) = 0;
  virtual bool exception(std::exception_ptr) = 0;
  virtual std::chrono::nanoseconds remaining() const noexcept = 0;

protected:
  ~ReplyInterface() = default;
};

// What the entry of a task asks of the child that it is in.
class ChildInterface {
public:
  // Answer calls until the parent closes: at once, or when the task replies.
  virtual void answer(Callback<void(Reader& argument, Writer& answer)>) = 0;
  virtual void answer_later(Callback<void(Reader& argument, std::shared_ptr<ReplyInterface>)>) = 0;
  // The pipe of a process; and its loop, until both directions are over.
  virtual std::shared_ptr<PipeInterface> open_pipe() = 0;
  virtual void converse() = 0;
  // The same until `done`, whatever happens to the pipe.
  virtual void converse_until(const bool& done) = 0;
  // The task is no conversation: reports that its function begins.
  virtual void begin_service() = 0;

protected:
  ~ChildInterface() = default;
};

// A task, independent of its types.
struct Task {
  using Entry = void (*)(ChildInterface&, Reader& callable);
  Entry entry = nullptr;
  // Other functions of the program that it calls; they may be in other libraries than the entry.
  FunctionList functions{};
  std::string callable{};
  bool replies_later = false;
  // Whether what its child sends may come with descriptors.  If not, the kernel delivers none, if it
  // has SO_PASSRIGHTS.
  bool takes_descriptors = true;
};

template <class F>
Task make_task(const F& f, Task::Entry entry, bool takes_descriptors = true,
               bool replies_later = false) {
  Writer callable;
  CallableCodec<F>::serialize(callable, f);
  Task task{entry, {}, std::move(callable.bytes()), replies_later, takes_descriptors};
  CallableCodec<F>::functions(f, task.functions);
  return task;
}

// Distinguishes an exception of the task itself from one of a codec: it becomes an
// Error{remote_exception}.
[[noreturn]] EVPARALLEL_API void rethrow_as_remote();

template <class F, class... A>
auto call_task(F& f, A&&... arguments) -> decltype(f(std::forward<A>(arguments)...)) {
  try {
    return f(std::forward<A>(arguments)...);
  } catch (...) {
    rethrow_as_remote();
  }
}

// The function that answers the calls of a task: f itself, unless it has a state.
template <class F>
F& begin_task(F& f) noexcept {
  return f;
}

// One call: decode, call, encode.  `Args` is the codec of the arguments.
template <class Inc, class IncCodec, class Args, class F>
void answer_call(F& f, Reader& in, Writer& out) {
  Args::apply(in, [&](auto&&... arguments) {
    if constexpr (std::is_void_v<Inc>)
      call_task(f, std::move(arguments)...);
    else
      encode<IncCodec>(out, call_task(f, std::move(arguments)...));
  });
}

template <class F, class Inc, class IncCodec, class Args>
void run_entry(ChildInterface& child, Reader& callable) {
  F task = CallableCodec<F>::deserialize(callable);
  auto&& f = begin_task(task);
  child.answer([&f](Reader& in, Writer& out) { answer_call<Inc, IncCodec, Args>(f, in, out); });
}

template <class F, class Inc, class IncCodec, class Args>
void run_later_entry(ChildInterface& child, Reader& callable) {
  F task = CallableCodec<F>::deserialize(callable);
  auto&& f = begin_task(task);
  child.answer_later([&f](Reader& in, std::shared_ptr<ReplyInterface> core) {
    Reply<Inc> reply = Reply<Inc>::template with<IncCodec>(std::move(core));
    Args::apply(
        in, [&](auto&&... arguments) { call_task(f, std::move(arguments)..., std::move(reply)); });
  });
}

template <class F, class InCodec, class OutCodec, class In, class Out>
void process_entry(ChildInterface& child, Reader& callable) {
  F f = CallableCodec<F>::deserialize(callable);
  call_task(f, Pipe<In, Out>(child.open_pipe(), pipe_codecs<In, Out, InCodec, OutCodec>));
  child.converse();
}

}  // namespace detail

namespace detail {

// The functions of every Reply, whatever its answer.
class ReplyHandle {
public:
  // Returns false if the call was answered before: then nothing is sent.
  bool fail(std::exception_ptr exception) const { return core_->exception(std::move(exception)); }
  // As in this_call, for the call of this Reply: whether it was given up, and the time until its
  // deadline.
  bool cancelled() const noexcept { return remaining() == std::chrono::nanoseconds::zero(); }
  std::chrono::nanoseconds remaining() const noexcept { return core_->remaining(); }

protected:
  explicit ReplyHandle(std::shared_ptr<ReplyInterface> core) noexcept : core_(std::move(core)) {}
  ReplyInterface& core() const noexcept { return *core_; }

private:
  std::shared_ptr<ReplyInterface> core_;
};

}  // namespace detail

// In an asynchronous task: answers its call, now or later.  Copies answer the same call.  If the
// last copy is dropped unanswered, the call fails with remote_exception.
template <class Inc>
class Reply : public detail::ReplyHandle {
public:
  // Returns false if the call was answered before: then nothing is sent.
  // An answer that cannot be encoded fails the call with bad_message.
  bool operator()(const Inc& value) const {
    Writer out;
    try {
      put_(out, value);
    } catch (const Error& error) {
      return core().error(error);
    }
    return core().value(out);
  }

  template <class Codec>
  static Reply with(std::shared_ptr<detail::ReplyInterface> core) {
    return Reply(std::move(core),
                 [](Writer& out, const Inc& value) { detail::encode<Codec>(out, value); });
  }

private:
  using Put = void (*)(Writer&, const Inc&);
  Reply(std::shared_ptr<detail::ReplyInterface> core, Put put) noexcept
      : ReplyHandle(std::move(core)), put_(put) {}
  Put put_;
};

template <>
class Reply<void> : public detail::ReplyHandle {
public:
  bool operator()() const {
    Writer out;
    return core().value(out);
  }

  template <class Codec>
  static Reply with(std::shared_ptr<detail::ReplyInterface> core) {
    return Reply(std::move(core));
  }

private:
  using ReplyHandle::ReplyHandle;
};

}  // namespace evparallel
