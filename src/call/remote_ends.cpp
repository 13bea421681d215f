// remote_ends.cpp - what happens to the calls of a child that has ended.
// Runs in: parent.  Licence: see COPYING.
#include "call/remote_core.hpp"

namespace evparallel::detail {

namespace {

// For example a spare child that was dying already when it was taken: the end of a spare must not
// be charged to a call.
bool was_lost_unused(const Callee& child, const ExitStatus& status) noexcept {
  const bool by_others = status.cause == Cause::crash || status.cause == Cause::out_of_memory;
  return by_others && child.handle().unused();
}

struct Failed {
  Answer answer;
  Error error;
};

}  // namespace

// Repeating is safe if the child is known not to have begun the call.
bool RemoteCore::may_repeat(const Callee& child, const UnansweredCall& call,
                            const ExitStatus& status) const noexcept {
  if (was_lost_unused(child, status)) return true;
  if (call.kept.call.held && status.cause != Cause::not_started) return true;
  const bool begun = call.delivery == Delivery::started ||
                     (call.delivery == Delivery::sent && !child.handle().slot_known());
  if (is_ended_for_a_call(status)) return !begun;
  return call.kept.call.repeats_left > 0 && !child.task_has_failed() &&
         (!begun || spec_->options->idempotent);
}

// Each of its calls fails, or is made again.
void RemoteCore::on_ended(Callee& child, const ExitStatus& status, const Error& end) {
  const auto keep = shared_from_this();
  const std::unique_ptr<Callee> gone = take(child);
  std::vector<KeptCall> again;
  std::vector<Failed> failed;
  for (UnansweredCall& one : child.take_unanswered(status, end)) {
    PendingCall& pending = one.kept.call;
    if (!may_repeat(child, one, status)) {
      failed.push_back({std::move(pending.answer), error_of(one, end)});
      continue;
    }
    if (!is_ended_for_a_call(status) && !pending.held && !was_lost_unused(child, status))
      --pending.repeats_left;
    again.push_back(std::move(one.kept));
  }
  repeat(std::move(again));
  for (Failed& one : failed) {
    loop_->call([&one] { one.answer(nullptr, &one.error); });
    remove_pending();
  }
}

void RemoteCore::repeat(std::vector<KeptCall> calls) {
  for (auto& [id, pending, argument] : calls) {
    try {
      dispatch(id, pending, argument);
    } catch (const Error& error) {
      complete_later(error, std::move(pending.answer));
    }
  }
  if (closed_ && !calls.empty() && current_) current_->close();
}

std::unique_ptr<Callee> RemoteCore::take(Callee& child) noexcept {
  if (current_.get() == &child) return std::move(current_);
  if (!dying_.peek()) return nullptr;
  for (auto& one : *dying_) {
    if (one.get() != &child) continue;
    std::unique_ptr<Callee> found = std::move(one);
    dying_->erase(dying_->begin() + (&one - dying_->data()));
    return found;
  }
  return nullptr;
}

}  // namespace evparallel::detail
