// remote_ends.cpp - what happens to the calls of a child that has ended.
// Runs in: parent.  Licence: see COPYING.
#include "system/failpoint.hpp"
#include "call/remote_core.hpp"

namespace evparallel {

namespace detail {

namespace {

// The child was ended because of one of its calls: the other calls must not be affected.
bool ended_by_us(const ExitStatus& status) noexcept {
  return status.cause == Cause::cancelled || status.cause == Cause::deadline;
}

// For example a spare child that was dying already when it was taken: the end of a spare must not
// be charged to a call.
bool was_lost_unused(const RemoteChild& child, const ExitStatus& status) noexcept {
  const bool by_others = status.cause == Cause::crash || status.cause == Cause::out_of_memory;
  return by_others && child.handle->unused();
}

}  // namespace

// Repeating is safe if the child is known not to have begun the call.
bool RemoteCore::may_repeat(const RemoteChild& child, const PendingCall& pending, Delivery delivery,
                            const ExitStatus& status) const noexcept {
  if (single()) return false;
  if (was_lost_unused(child, status)) return true;
  if (pending.held && status.cause != Cause::not_started) return true;
  const bool begun =
      delivery == Delivery::started || (delivery == Delivery::sent && !child.handle->slot_known());
  if (ended_by_us(status)) return !begun;
  return pending.attempts < pattern_->options->retries && !child.task_error &&
         (!begun || pattern_->options->idempotent);
}

namespace {

struct Failed {
  Answer answer;
  Error error;
};

Error torn_answer(const Error& end) {
  const Error error(Errc::bad_message,
                    std::string("bad message: the stream ended inside the answer: ") + end.what());
  return end.exit() ? error.with_exit(*end.exit()) : error;
}

}  // namespace

// The call whose answer was received in part; 0: none.  If that part does not name the call, it is
// the first one, provided that the task answers in order.
std::uint64_t RemoteCore::answered_in_part(const RemoteChild& child,
                                           const std::vector<KeptCall>& calls) const noexcept {
  if (child.torn == RemoteChild::not_torn) return 0;
  if (child.torn != 0) return child.torn;
  return calls.empty() || pattern_->task->replies_later ? 0 : calls.front().id;
}

// The end of a child: each of its calls fails, or is made again.
void RemoteCore::child_ended(RemoteChild& child, const ExitStatus& status, const Error& error) {
  fault_at(Hop::ended);
  const auto keep = shared_from_this();
  const std::unique_ptr<RemoteChild> gone = take(child);
  const bool ours = ended_by_us(status);
  Error told = child.task_error ? *child.task_error : error;
  if (ours) told = Error(Errc::child_killed, "child_killed: " + status.describe());
  if (!told.exit() && error.exit()) told = told.with_exit(*error.exit());
  erase_cancel_entries(child);
  on_child_ended(status, told);

  std::vector<KeptCall> again;
  std::vector<Failed> failed;
  std::vector<KeptCall> calls = child.calls.take_all();
  // The loss of the snapshot explains more than the answer that it cut short.
  const bool by_itself = !ours && told.code() != Errc::snapshot_lost;
  const std::uint64_t torn = by_itself ? answered_in_part(child, calls) : 0;
  for (auto& [id, pending, argument] : calls) {
    erase(std::exchange(pending.note, nullptr));
    Delivery delivery = child.delivery(id, pending);
    // The derived class makes the calls again, and decides by the delivery alone.
    if (single() && delivery == Delivery::sent && !child.handle->slot_known())
      delivery = Delivery::started;
    if (may_repeat(child, pending, delivery, status)) {
      if (!ours && !pending.held && !was_lost_unused(child, status)) ++pending.attempts;
      again.push_back({id, std::move(pending), std::move(argument)});
    } else {
      forget_deadline(id, pending);
      failed.push_back({std::move(pending.answer),
                        (id == torn ? torn_answer(told) : told).with_delivery(delivery)});
    }
  }
  repeat(std::move(again));
  for (Failed& one : failed) {
    loop_->call([&one] { one.answer(nullptr, &one.error); });
    ended();
  }
}

void RemoteCore::repeat(std::vector<KeptCall> calls) {
  for (auto& [id, pending, argument] : calls) {
    try {
      place(id, pending, argument);
    } catch (const Error& error) {
      forget_deadline(id, pending);
      complete_later(error, std::move(pending.answer));
    }
  }
  if (closed_ && !calls.empty() && current_) current_->handle->pipe()->close();
}

std::unique_ptr<RemoteChild> RemoteCore::take(RemoteChild& child) noexcept {
  if (current_.get() == &child) return std::move(current_);
  if (!dying_.peek()) return nullptr;
  for (auto& one : *dying_) {
    if (one.get() != &child) continue;
    std::unique_ptr<RemoteChild> found = std::move(one);
    dying_->erase(dying_->begin() + (&one - dying_->data()));
    return found;
  }
  return nullptr;
}

}  // namespace detail

}  // namespace evparallel
