// remote_cancel.cpp - calls that are given up: cancelled, or past their deadline.
// Runs in: parent.  Licence: see COPYING.
//
// The callback of the caller is called at once.  An entry in the cancel table, in shared memory,
// keeps the child from beginning the call.  If the child has begun it, the entry informs the task,
// and the snapshot is asked to kill the child if it still runs this call when the time is over.
// The parent writes the entry and then reads the slot; the child writes the slot and then reads the
// entry.  So at least one of the two sees what the other has written.
#include "call/remote_core.hpp"

namespace evparallel {

namespace detail {

namespace {

constexpr std::uint64_t never_answered = UINT64_MAX;  // as the number of a ping

// The time that a task gets when its call is given up.  The grace of a deadline is divided, because
// the child has to be dead when all of it has passed.
SnapshotProcess::Clock clock_for(Cause cause, std::chrono::milliseconds grace) noexcept {
  if (cause == Cause::deadline) return {grace / 2, grace - grace / 2, cause};
  return {grace, grace, cause};
}

}  // namespace

void RemoteCore::cancel(std::uint64_t id) {
  if (!loop_->alive()) return;
  give_up(id, Error(Errc::cancelled, "cancelled: Call::cancel()"), Cause::cancelled);
}

RemoteChild* RemoteCore::child_of(std::uint64_t id) noexcept {
  if (current_ && current_->calls.find(id)) return current_.get();
  if (!dying_.peek()) return nullptr;
  for (auto& child : *dying_)
    if (child->calls.find(id)) return child.get();
  return nullptr;
}

void RemoteCore::give_up(std::uint64_t id, const Error& error, Cause cause) {
  RemoteChild* const child = child_of(id);
  if (!child) return;
  PendingCall pending = child->calls.take(id);
  forget_deadline(id, pending);
  if (!pending.held) {
    tell(*child, id, pending, revoked);
    child->given_up->calls.emplace(id, RemoteChild::AbandonedCall{pending.note, cause});
  }
  const Delivery delivery = child->delivery(id, pending);  // read after the entry is written
  if (delivery == Delivery::started) kill_if_still_running(*child, id, cause);
  complete_later(error.with_delivery(delivery), std::move(pending.answer));
}

// Safe even if the child begins the call at this moment: then it ignores the entry.
bool RemoteCore::take_back(std::uint64_t id) {
  RemoteChild* const child = loop_->alive() ? child_of(id) : nullptr;
  if (!child) return false;
  PendingCall& pending = *child->calls.find(id);
  if (!pending.held) {
    if (!child->handle->slot_known() || child->delivery(id, pending) == Delivery::started)
      return false;
    const std::int64_t deadline = pending.deadline;
    tell(*child, id, pending, reassigned);
    if (!pending.note) return false;
    if (child->delivery(id, pending) == Delivery::started) {
      pending.note->deadline.store(deadline);
      return false;
    }
    child->given_up->calls.emplace(id, RemoteChild::AbandonedCall{pending.note, Cause::cancelled});
  }
  PendingCall taken = child->calls.take(id);
  forget_deadline(id, taken);
  ended();
  return true;
}

bool RemoteCore::is_given_up(std::uint64_t id) const noexcept {
  return current_ && current_->given_up.peek() && current_->given_up->calls.count(id) > 0;
}

// Asks the snapshot to kill the child if it still runs this call when the timer expires; or, if its
// calls overlap, if its loop has made no iteration by then.
void RemoteCore::kill_if_still_running(RemoteChild& child, std::uint64_t id, Cause cause) {
  const SnapshotProcess::Clock clock = clock_for(cause, pattern_->options->grace);
  child.given_up->kill_requested = true;
  if (!pattern_->task->replies_later) return child.handle->kill_if_still_running(clock, id, 0);
  if (closed_) {
    // No ping can be sent any more.  Calls that are still wanted come first.
    if (child.calls.count() == 0) child.handle->kill_if_still_running(clock, 0, never_answered);
    return;
  }
  Writer nothing;
  child.handle->pipe()->put(FrameKind::ping, ++child.given_up->pings, nothing);
  child.handle->kill_if_still_running(clock, 0, child.given_up->pings);
}

// Only now it is known how far the calls had got.
void RemoteCore::child_started(RemoteChild& child) {
  if (!child.given_up.peek()) return;
  for (const auto& item : child.given_up->calls)
    if (child.handle->delivery(item.first, 0) == Delivery::started)
      kill_if_still_running(child, item.first, item.second.cause);
}

// ---- the cancel table ----

void RemoteCore::tell(RemoteChild& child, std::uint64_t id, PendingCall& pending,
                      std::int64_t deadline) {
  if (pending.note)
    pending.note->deadline.store(deadline);
  else
    pending.note = pattern_->replicas->notes().write(child.handle->owner_id(), id, deadline);
}

void RemoteCore::forget_given_up(RemoteChild& child, std::uint64_t id) {
  if (!child.given_up.peek()) return;
  auto& calls = child.given_up->calls;
  const auto found = calls.find(id);
  if (found == calls.end()) return;
  erase(found->second.note);
  calls.erase(found);
  on_given_up_answered(id);
}

void RemoteCore::erase_cancel_entries(RemoteChild& child) noexcept {
  if (!child.given_up.peek()) return;
  for (const auto& item : child.given_up->calls) erase(item.second.note);
  child.given_up->calls.clear();
}

// In a process that the program has forked, the entries still belong to the program.
void RemoteCore::erase(CancelEntry* note) noexcept {
  if (note && loop_->at_home()) pattern_->replicas->notes().erase(note);
}

// ---- deadlines ----

void RemoteCore::set_deadline(std::uint64_t id, std::chrono::nanoseconds time) {
  RemoteChild* const child = loop_->alive() ? child_of(id) : nullptr;
  if (!child) return;
  PendingCall& pending = *child->calls.find(id);
  forget_deadline(id, pending);
  keep_deadline(id, pending, deadline_in(time));
  if (!pending.held) tell(*child, id, pending, pending.deadline);
}

void RemoteCore::keep_deadline(std::uint64_t id, PendingCall& pending, std::int64_t at) {
  pending.deadline = at;
  if (at == no_deadline) return;
  deadlines_->soonest.emplace(at, id);
  if (at < deadlines_->clock_at) set_clock();
}

void RemoteCore::forget_deadline(std::uint64_t id, PendingCall& pending) noexcept {
  if (pending.deadline == no_deadline) return;
  if (deadlines_.peek()) deadlines_->soonest.erase({pending.deadline, id});
  pending.deadline = no_deadline;
}

void RemoteCore::set_clock() {
  Deadlines& all = *deadlines_;
  if (all.clock_at == no_deadline) all.clock.set<&RemoteCore::on_clock>(*loop_, -1, 0, this);
  all.clock_at = all.soonest.empty() ? no_deadline : all.soonest.begin()->first;
  if (all.clock_at == no_deadline) return all.clock.remove();
  all.clock.add_in(std::chrono::nanoseconds(all.clock_at - now_ns()));
}

// No deadline is kept any more.
void RemoteCore::stop_clock() noexcept {
  if (!deadlines_.peek()) return;
  deadlines_->clock.unset();
  deadlines_->soonest.clear();
}

void RemoteCore::on_clock() {
  const auto keep = shared_from_this();
  const std::int64_t now = now_ns();
  auto& soonest = deadlines_->soonest;
  while (!soonest.empty() && soonest.begin()->first <= now) {
    const std::uint64_t id = soonest.begin()->second;
    soonest.erase(soonest.begin());
    give_up(id, Error(Errc::deadline, "deadline: the call was not answered in time"),
            Cause::deadline);
  }
  set_clock();
}

}  // namespace detail

}  // namespace evparallel
