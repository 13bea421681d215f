// callee.cpp - the calls of one child: sent, answered, or left when it ends.
// Runs in: parent.  Licence: see COPYING.
#include "call/callee.hpp"

#include "base/no_memory.hpp"
#include "system/failpoint.hpp"
#include "codec/remote_error.hpp"

#include <new>

namespace evparallel::detail {

Callee::Callee(CalleeOwner& owner)
    : owner_(owner),
      calls_(Pooled<PendingCalls::Waiting>(
          owner.loop()->extension<ObjectPool<PendingCalls::Waiting>>())) {}

void Callee::spawn() {
  const ChildSpec& spec = owner_.spec();
  handle_ = ChildHandle::spawn(spec.replicas->next(owner_.loop()), owner_.loop(), *spec.task,
                               spec.options, ChildHandle::Use::remote_function, this);
}

// ---- to the child ----

// First the memory: a frame that was queued cannot be taken back.
void Callee::send(std::uint64_t id, PendingCall& pending, Writer& argument, Keep keep) {
  PipeCore& pipe = *handle_->pipe();
  pending.held = false;
  pending.offset = pipe.bytes_put();
  if (pending.deadline != no_deadline) publish_deadline(id, pending, pending.deadline);
  try {
    add(id, pending, argument, keep);
  } catch (...) {
    erase(std::exchange(pending.cancel_entry, nullptr));
    throw;
  }
  try {
    pipe.put(FrameKind::call, id, argument, PipeCore::FlushPolicy::with_the_turn,
             Channel::Message::kept);
  } catch (...) {
    pending = take(id);
    erase(std::exchange(pending.cancel_entry, nullptr));
    throw;
  }
  if (keep == Keep::argument) calls_.keep_argument(argument);
}

void Callee::defer(std::uint64_t id, PendingCall& pending, Writer& argument, Keep keep) {
  pending.held = true;
  pending.offset = handle_->pipe()->bytes_put();
  add(id, pending, argument, keep);
  if (keep == Keep::argument) calls_.keep_argument(argument);
}

void Callee::add(std::uint64_t id, PendingCall& pending, const Writer& argument, Keep keep) {
  const std::int64_t deadline = pending.deadline;
  PendingCall& added =
      calls_.add(id, std::move(pending), keep == Keep::argument ? &argument : nullptr);
  if (deadline == no_deadline) return;
  try {
    keep_deadline(id, added, deadline);
  } catch (...) {
    pending = calls_.take(id);
    pending.deadline = deadline;
    throw;
  }
}

// With no deadline to wait for any more.
PendingCall Callee::take(std::uint64_t id) noexcept {
  PendingCall taken = calls_.take(id);
  forget_deadline(id, taken);
  return taken;
}

// ---- from the child ----

namespace {

void answer_error(Answer& answer, const Error& error, Delivery delivery) {
  const Error complete = error.with_delivery(delivery);
  answer(nullptr, &complete);
}

// A child begins no call that its parent has taken back or cancelled, but then the call is not
// pending here; or a call whose deadline has passed.  Whatever else it says, the call is not made
// again as one that was never begun: a child that lies would be asked for ever.
Delivery delivery_of(const Error& error, const PendingCall& pending) noexcept {
  const bool late = error.code() == Errc::deadline && pending.deadline <= now_ns();
  return late && error.delivery() == Delivery::sent ? Delivery::sent : Delivery::started;
}

Error answer_is_too_large() noexcept {
  return error_or_no_memory(Delivery::started, [] {
    return Error(Errc::too_large, "too large: the answer exceeds the limit of the parent");
  });
}

void finish(Frame& frame, PendingCall& pending, const ChildHandle& child) {
  Answer& answer = pending.answer;
  if (frame.skipped == Frame::Skipped::no_memory)
    return answer_error(answer, no_memory("for the answer"), Delivery::started);
  if (frame.skipped == Frame::Skipped::too_large)
    return answer_error(answer, answer_is_too_large(), Delivery::started);
  Reader in = frame.reader();
  if (frame.kind == FrameKind::value) return answer(&in, nullptr);
  const Error error =
      error_or_no_memory(Delivery::started, [&] { return child.explained(error_in(in)); });
  answer_error(answer, error, delivery_of(error, pending));
}

}  // namespace

// The callback comes last: it may destroy this object.
void Callee::on_frame(Frame& frame) {
  if (frame.kind != FrameKind::value && frame.kind != FrameKind::error) return;
  fault_at(Failpoint::finish);
  if (frame.id == 0) return owner_.on_ready();
  PendingCall pending = calls_.take(frame.id);
  if (!pending.answer) return forget_abandoned(frame.id);
  forget_deadline(frame.id, pending);
  erase(pending.cancel_entry);
  owner_.on_answer();
  finish(frame, pending, *handle_);
}

namespace {

const Error& error_without_reason() noexcept {
  static const Error error = no_memory(Delivery::not_sent);
  return error;
}

}  // namespace

void Callee::ReleaseError::operator()(const Error* error) const noexcept {
  if (error != &error_without_reason()) delete error;
}

// An error of the task itself is passed to all calls, instead of the exit status that follows.
void Callee::on_task_error(const Error& error) {
  const Error* const kept = new (std::nothrow) Error(error);
  task_error_.reset(kept ? kept : &error_without_reason());
}

// ---- the end of the child ----

void Callee::on_ended(const ExitStatus& status, const Error& error) {
  fault_at(Failpoint::ended);
  Error end = task_error_ ? *task_error_ : error;
  end = error_or_no_memory(Delivery::not_sent, [&] {
    if (is_ended_for_a_call(status))
      end = Error(Errc::child_killed, "child_killed: " + status.describe());
    return !end.exit() && error.exit() ? end.with_exit(*error.exit()) : end;
  });
  erase_cancel_entries();
  ended_ = true;
  owner_.on_ended(*this, status, end);
}

// The call whose answer was received in part; 0: none.  If that part does not name the call, it is
// the first one, provided that the task answers in order.
std::uint64_t Callee::answered_in_part(const std::vector<UnansweredCall>& calls) const noexcept {
  if (torn_ == not_torn) return 0;
  if (torn_ != 0) return torn_;
  return calls.empty() || owner_.spec().task->replies_later ? 0 : calls.front().kept.id;
}

std::vector<UnansweredCall> Callee::take_unanswered(const ExitStatus& status, const Error& end) {
  std::vector<UnansweredCall> calls;
  calls.reserve(calls_.count());
  for (KeptCall& kept : calls_.take_all()) {
    erase(std::exchange(kept.call.cancel_entry, nullptr));
    const Delivery far = delivery(kept.id, kept.call);
    calls.push_back({std::move(kept), far, false});
  }
  stop_clock();
  // The loss of the snapshot explains more than the answer that it cut short.
  if (is_ended_for_a_call(status) || end.code() == Errc::snapshot_lost) return calls;
  const std::uint64_t torn = answered_in_part(calls);
  for (UnansweredCall& one : calls) one.answered_in_part = one.kept.id == torn;
  return calls;
}

UnansweredCall Callee::take_left() noexcept {
  stop_clock();
  UnansweredCall one{calls_.take_any(), Delivery::not_sent, false};
  one.delivery = aborted_ ? one.kept.call.delivery : delivery(one.kept.id, one.kept.call);
  erase(std::exchange(one.kept.call.cancel_entry, nullptr));
  return one;
}

Error error_of(const UnansweredCall& call, const Error& end) noexcept {
  if (call.kept.argument_lost) return no_memory(call.delivery);
  if (!call.answered_in_part) return end.with_delivery(call.delivery);
  return error_or_no_memory(call.delivery, [&] {
    const Error error(
        Errc::bad_message,
        std::string("bad message: the stream ended inside the answer: ") + end.what());
    return (end.exit() ? error.with_exit(*end.exit()) : error).with_delivery(call.delivery);
  });
}

void Callee::close() {
  closed_ = true;
  if (handle_) handle_->pipe()->close();
}

void Callee::shutdown() {
  close();
  if (handle_) handle_->shutdown();
}

void Callee::terminate(std::chrono::milliseconds grace) {
  if (handle_) handle_->terminate(grace);
}

// The slot of the child may soon be that of another one.
void Callee::abort() noexcept {
  if (std::exchange(aborted_, true)) return;
  stop_clock();
  calls_.for_each([this](std::uint64_t id, PendingCall& call) {
    call.delivery = delivery(id, call);
    erase(std::exchange(call.cancel_entry, nullptr));
  });
  erase_cancel_entries();
  if (handle_ && !ended_) handle_->abort();
}

}  // namespace evparallel::detail
