// pool_events.cpp - what a pool reports about itself: ready, closed, and the life of each child.
// Runs in: parent.  Licence: see COPYING.
#include "pool/pool_core.hpp"

#include <algorithm>

namespace evparallel::detail {

// ---- the loop ----

// It must not end while a call, a map, a replacement or one of these callbacks is awaited.
void PoolCore::update_hold() noexcept {
  if (!loop_->alive()) return;
  const bool ends = stage_ == Stage::closing || stage_ == Stage::stopping;
  const bool wanted = pending_ > idle_streams_ || !on_ready_.empty() || replacement_ ||
                      (ends && !on_closed_.empty());
  if (wanted == std::exchange(holds_, wanted)) return;
  if (wanted)
    loop_->hold();
  else
    loop_->release();
}

// ---- callbacks that are called once ----

// Takes the room in due_, too.
void PoolCore::add(OnceCallbacks& callbacks, Callback<void(Result<void>)> callback) {
  due_.reserve(due_.size() + on_ready_.size() + on_replaced_.size() + on_closed_.size() + 1);
  callbacks.push_back({std::move(callback)});
}

// Each is called in a later callback of the loop, which it holds until then.
void PoolCore::call_later(OnceCallbacks& callbacks, const Result<void>& result) noexcept {
  const std::size_t count = callbacks.size();
  for (OnceCallback& one : callbacks) {
    loop_->hold();
    one.result = result;
    due_.push_back(std::move(one));
  }
  callbacks.clear();
  if (count > 0)
    loop_->defer_or_retry(*this, [self = shared_from_this(), count] { self->call_due(count); });
  update_hold();
}

void PoolCore::call_due(std::size_t count) {
  const auto keep = shared_from_this();
  for (; count > 0 && !due_.empty() && !loop_->interrupted(); --count) {
    OnceCallback one = std::move(due_.front());
    due_.erase(due_.begin());
    loop_->release();  // first: a callback may throw
    loop_->call([&one] { one.callback(one.result); });
  }
  if (count > 0 && !due_.empty())
    loop_->defer_or_retry(*this, [self = keep, count] { self->call_due(count); });
  leave_if_done();
}

// ---- on_ready ----

std::size_t PoolCore::least_ready() const noexcept {
  return std::max<std::size_t>(options_.min_workers, 1);
}

bool PoolCore::is_ready() const noexcept {
  const auto ready = std::count_if(workers_.begin(), workers_.end(), [](const auto& worker) {
    return worker->stage == PoolWorker::Stage::ready && !worker->standby;
  });
  return static_cast<std::size_t>(ready) >= least_ready();
}

void PoolCore::check_ready() {
  if (!on_ready_.empty() && is_ready()) call_later(on_ready_, {});
}

void PoolCore::add_on_ready(Callback<void(Result<void>)> callback) {
  loop_->check_thread();
  if (!callback || !loop_->alive()) return;
  add(on_ready_, std::move(callback));
  if (stage_ != Stage::open)
    return call_later(on_ready_, Error(Errc::cancelled, "cancelled: the pool was closed"));
  if (unhealthy_ && now_ns() < start_at_ && !proven()) return call_later(on_ready_, *unhealthy_);
  update_hold();
  check_ready();
  pump_later();
}

// ---- on_replaced ----

void PoolCore::add_on_replaced(Callback<void(Result<void>)> callback) {
  loop_->check_thread();
  if (!callback || !loop_->alive()) return;
  add(on_replaced_, std::move(callback));
  if (!replacement_) call_later(on_replaced_, {});
}

// ---- on_closed ----

bool PoolCore::is_over() const noexcept {
  return (stage_ == Stage::closing || stage_ == Stage::stopping) && pending_ == 0 &&
         workers_.empty();
}

void PoolCore::add_on_closed(Callback<void()> callback) {
  loop_->check_thread();
  if (!callback || !loop_->alive()) return;
  add(on_closed_, [callback = std::move(callback)](const Result<void>&) mutable { callback(); });
  if (is_over()) return call_later(on_closed_, {});
  update_hold();
}

// ---- on_worker ----

// Called later, because the callback may destroy the pool and whatever is at work here.
void PoolCore::report(const PoolWorker& worker, WorkerEvent::Kind kind) {
  if (!on_worker_.is_set()) return;
  WorkerEvent event;
  event.kind = kind;
  event.pid = worker.pid();
  loop_->defer([self = shared_from_this(), event] { self->on_worker_(event); });
}

void PoolCore::report_end(const PoolWorker& worker, const ExitStatus& status, const Error& error,
                          bool expected) {
  if (!on_worker_.is_set()) return;
  WorkerEvent event;
  event.kind = WorkerEvent::Kind::ended;
  event.pid = status.pid;
  event.status = status;
  event.calls = worker.answered;
  event.expected = expected;
  if (!expected && !worker.begun) event.error = error;
  loop_->defer([self = shared_from_this(), event] { self->on_worker_(event); });
}

void PoolCore::report_not_started(const PoolWorker& worker, const Error& error) {
  ExitStatus status;
  status.cause = Cause::not_started;
  report_end(worker, status, error, false);
}

// The child may have said that it is ready before its fork is reported.
void PoolCore::child_started(PoolWorker& worker) {
  report(worker, WorkerEvent::Kind::started);
  if (worker.was_ready) report(worker, WorkerEvent::Kind::ready);
}

}  // namespace evparallel::detail
