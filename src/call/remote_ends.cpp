// remote_ends.cpp - what happens to the calls of a child that has ended.
// Runs in: parent.  Licence: see COPYING.
#include "call/remote_core.hpp"

#include "base/no_memory.hpp"

#include <new>

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

struct RemoteCore::Sorted {
  std::vector<KeptCall> again;
  std::vector<Failed> failed;  // with room for all
};

// Fails: std::bad_alloc, and the calls are left.
RemoteCore::Sorted RemoteCore::sort(Callee& child, const ExitStatus& status,
                                    const Error& end) const {
  Sorted sorted;
  sorted.again.reserve(child.count());
  sorted.failed.reserve(child.count());
  std::vector<UnansweredCall> calls = child.take_unanswered(status, end);
  for (UnansweredCall& one : calls) {
    PendingCall& pending = one.kept.call;
    if (one.kept.argument_lost || !may_repeat(child, one, status)) {
      sorted.failed.push_back({std::move(pending.answer), error_of(one, end)});
      continue;
    }
    if (!is_ended_for_a_call(status) && !pending.held && !was_lost_unused(child, status))
      --pending.repeats_left;
    sorted.again.push_back(std::move(one.kept));
  }
  return sorted;
}

// Each of its calls fails, or is made again.
void RemoteCore::on_ended(Callee& child, const ExitStatus& status, const Error& end) {
  const auto keep = shared_from_this();
  const std::unique_ptr<Callee> gone = take(child);
  Sorted sorted;
  try {
    sorted = sort(child, status, end);
  } catch (const std::bad_alloc&) {
    return fail_all_of(child);
  }
  repeat(sorted);
  for (Failed& one : sorted.failed) {
    loop_->call([&one] { one.answer(nullptr, &one.error); });
    remove_pending();
  }
}

void RemoteCore::repeat(Sorted& sorted) {
  for (auto& [id, pending, argument, lost] : sorted.again) {
    static_cast<void>(lost);
    try {
      dispatch(id, pending, argument);
    } catch (const Error& error) {
      sorted.failed.push_back({std::move(pending.answer), error});
    } catch (const std::exception&) {  // no memory here, or in the kernel
      sorted.failed.push_back({std::move(pending.answer), no_memory(Delivery::not_sent)});
    }
  }
  if (closed_ && !sorted.again.empty() && current_) current_->close();
}

// There is no memory even for the list of its calls.
void RemoteCore::fail_all_of(Callee& child) {
  while (child.any_left()) {
    UnansweredCall one = child.take_left();
    const Error error = no_memory(one.delivery);
    loop_->call([&] { one.kept.call.answer(nullptr, &error); });
    remove_pending();
  }
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
