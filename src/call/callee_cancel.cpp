// callee_cancel.cpp - calls that are given up: cancelled, or past their deadline.
// Runs in: parent.  Licence: see COPYING.
//
// The callback of the caller is called at once.  An entry in the cancel table, in shared memory,
// keeps the child from beginning the call.  If the child has begun it, the entry informs the task,
// and the snapshot is asked to kill the child if it still runs this call when the time is over.
// The parent writes the entry and then reads the slot; the child writes the slot and then reads the
// entry.  So at least one of the two sees what the other has written.
#include "call/callee.hpp"

#include <new>

namespace evparallel::detail {

namespace {

constexpr std::uint64_t never_answered = UINT64_MAX;  // as the number of a ping

// The time that a task gets when its call is given up.  The grace of a deadline is divided, because
// the child has to be dead when all of it has passed.
SnapshotProcess::Clock clock_for(Cause cause, std::chrono::milliseconds grace) noexcept {
  if (cause == Cause::deadline) return {grace / 2, grace - grace / 2, cause};
  return {grace, grace, cause};
}

}  // namespace

void Callee::cancel(std::uint64_t id) {
  if (!calls_.find(id)) return;
  give_up(id, Error(Errc::cancelled, "cancelled: Call::cancel()"), Cause::cancelled);
}

// First the memory, then the changes.
void Callee::give_up(std::uint64_t id, const Error& error, Cause cause) {
  PendingCall* const found = calls_.find(id);
  if (!found) return;
  auto late = std::make_unique<LateAnswer>(LateAnswer{{}, error});
  owner_.loop()->reserve_deferred(2);  // one for a ping
  const bool held = found->held;
  if (!held) abandoned_->calls.emplace(id, AbandonedCall{nullptr, cause});
  PendingCall pending = take(id);
  if (!held) {
    publish_deadline(id, pending, revoked);
    abandoned_->calls.find(id)->second.cancel_entry = pending.cancel_entry;
  }
  const Delivery far = delivery(id, pending);  // read after the entry is written
  if (far == Delivery::started)
    kill_if_still_running(id, cause);
  else if (!held)
    kill_if_not_started(cause);
  late->answer = std::move(pending.answer);
  late->error = error.with_delivery(far);
  owner_.complete_later(std::move(late));
}

// Safe even if the child begins the call at this moment: then it ignores the entry.
bool Callee::take_back(std::uint64_t id) {
  PendingCall* const found = calls_.find(id);
  if (!found) return false;
  PendingCall& pending = *found;
  if (!pending.held) {
    if (!handle_->slot_known() || delivery(id, pending) == Delivery::started) return false;
    const std::int64_t deadline = pending.deadline;
    const auto abandoned =
        abandoned_->calls.emplace(id, AbandonedCall{nullptr, Cause::cancelled}).first;
    publish_deadline(id, pending, undecided);
    const bool begun = !pending.cancel_entry || delivery(id, pending) == Delivery::started;
    if (pending.cancel_entry) pending.cancel_entry->deadline.store(begun ? deadline : reassigned);
    abandoned->second.cancel_entry = pending.cancel_entry;
    if (begun) {
      abandoned_->calls.erase(abandoned);
      return false;
    }
  }
  take(id);
  return true;
}

bool Callee::is_abandoned(std::uint64_t id) const noexcept {
  return abandoned_.peek() && abandoned_.peek()->calls.count(id) > 0;
}

// Asks the snapshot to kill the child if it still runs this call when the timer expires; or, if its
// calls overlap, if its loop has made no iteration by then.
void Callee::kill_if_still_running(std::uint64_t id, Cause cause) {
  const SnapshotProcess::Clock clock = clock_for(cause, owner_.spec().options->grace);
  abandoned_->kill_requested = true;
  if (!owner_.spec().task->replies_later) return handle_->kill_if_still_running(clock, id, 0);
  if (closed_) {
    // No ping can be sent any more.  Calls that are still wanted come first.
    if (calls_.count() == 0) handle_->kill_if_still_running(clock, 0, never_answered);
    return;
  }
  Writer nothing;
  std::uint64_t ping = ++abandoned_->pings;
  try {
    handle_->pipe()->put(FrameKind::ping, ping, nothing);
  } catch (const std::bad_alloc&) {
    ping = never_answered;
  }
  handle_->kill_if_still_running(clock, 0, ping);
}

// A child that hangs in a start hook never reads the entry in the cancel table.  One request does
// for all calls.
void Callee::kill_if_not_started(Cause cause) {
  const bool has_task = handle_->pipe()->bytes_written() > 0;
  if (!has_task || handle_->started() || kill_requested()) return;
  abandoned_->kill_requested = true;
  handle_->kill_if_not_started(clock_for(cause, owner_.spec().options->grace));
}

// Only now it is known how far the calls had got.
void Callee::on_started(pid_t) {
  if (abandoned_.peek())
    for (const auto& item : abandoned_->calls)
      if (handle_->delivery(item.first, 0) == Delivery::started)
        kill_if_still_running(item.first, item.second.cause);
  owner_.on_started();
}

// ---- the cancel table ----

void Callee::publish_deadline(std::uint64_t id, PendingCall& pending, std::int64_t deadline) {
  if (pending.cancel_entry)
    pending.cancel_entry->deadline.store(deadline);
  else
    pending.cancel_entry =
        owner_.spec().replicas->cancel_table().write(handle_->owner_id(), id, deadline);
}

void Callee::forget_abandoned(std::uint64_t id) {
  if (!abandoned_.peek()) return;
  auto& calls = abandoned_->calls;
  const auto found = calls.find(id);
  if (found == calls.end()) return;
  erase(found->second.cancel_entry);
  calls.erase(found);
  owner_.on_abandoned_call_done(id);
}

void Callee::erase_cancel_entries() noexcept {
  if (!abandoned_.peek()) return;
  for (const auto& item : abandoned_->calls) erase(item.second.cancel_entry);
  abandoned_->calls.clear();
}

// In a process that the program has forked, the entries still belong to the program.
void Callee::erase(CancelEntry* cancel_entry) noexcept {
  if (cancel_entry && owner_.loop()->at_home())
    owner_.spec().replicas->cancel_table().erase(cancel_entry);
}

// ---- deadlines ----

void Callee::set_deadline(std::uint64_t id, std::chrono::nanoseconds time) {
  PendingCall* const pending = calls_.find(id);
  if (!pending) return;
  const std::int64_t before = std::exchange(pending->deadline, no_deadline);
  try {
    keep_deadline(id, *pending, deadline_in(time));
  } catch (...) {
    pending->deadline = before;
    throw;
  }
  if (before != no_deadline && before != pending->deadline) deadlines_->soonest.erase({before, id});
  if (!pending->held) publish_deadline(id, *pending, pending->deadline);
}

void Callee::keep_deadline(std::uint64_t id, PendingCall& pending, std::int64_t at) {
  if (at != no_deadline) deadlines_->soonest.emplace(at, id);
  pending.deadline = at;
  if (at != no_deadline && at < deadlines_->clock_at) set_clock();
}

void Callee::forget_deadline(std::uint64_t id, PendingCall& pending) noexcept {
  if (pending.deadline == no_deadline) return;
  if (deadlines_.peek()) deadlines_->soonest.erase({pending.deadline, id});
  pending.deadline = no_deadline;
}

void Callee::set_clock() {
  Deadlines& all = *deadlines_;
  if (all.clock_at == no_deadline) all.clock.set<&Callee::on_clock>(*owner_.loop(), -1, 0, this);
  all.clock_at = all.soonest.empty() ? no_deadline : all.soonest.begin()->first;
  if (all.clock_at == no_deadline) return all.clock.remove();
  all.clock.add_in(std::chrono::nanoseconds(all.clock_at - now_ns()));
}

// No deadline is kept any more.
void Callee::stop_clock() noexcept {
  if (!deadlines_.peek()) return;
  deadlines_->clock.unset();
  deadlines_->soonest.clear();
}

void Callee::on_clock() {
  try {
    give_up_late_calls();
  } catch (const std::bad_alloc&) {  // again soon
    deadlines_->clock_at = now_ns();
    return deadlines_->clock.add_in(std::chrono::milliseconds(1));
  }
  set_clock();
}

void Callee::give_up_late_calls() {
  const std::int64_t now = now_ns();
  auto& soonest = deadlines_->soonest;
  while (!soonest.empty() && soonest.begin()->first <= now) {
    const auto first = *soonest.begin();
    give_up(first.second, Error(Errc::deadline, "deadline: the call was not answered in time"),
            Cause::deadline);
    soonest.erase(first);
  }
}

}  // namespace evparallel::detail
