// pool_calls.cpp - the calls of a pool: waiting, sent to a child, answered.
// Runs in: parent.  Licence: see COPYING.
#include "backtrace/symbolizer.hpp"
#include "pool/pool_core.hpp"
#include "pool/pool_format.hpp"

#include <algorithm>
#include <new>
#include <stdexcept>

namespace evparallel::detail {

namespace {

// From this size on a second copy of an argument shares its bytes.
constexpr std::size_t shared_from = 1024;

// The child has ended, or never existed: the call is not to blame.
bool is_end_of_child(Errc code) noexcept {
  switch (code) {
    case Errc::child_exited:
    case Errc::child_killed:
    case Errc::snapshot_lost:
    case Errc::spawn_failed:
    case Errc::overloaded:
    case Errc::unknown_function:
    case Errc::remote_exception:
    case Errc::closed: return true;
    default: return false;
  }
}

}  // namespace

void PoolCore::check_open() const {
  loop_->check_thread();
  if (stage_ != Stage::open)
    throw std::logic_error("evparallel: a pool was called after its close()");
  loop_->check_at_home();
  if (!loop_->alive())
    throw std::logic_error("evparallel: a pool was called after its Reactor was destroyed");
}

void PoolCore::began() {
  ++pending_;
  update_hold();
}
void PoolCore::ended() {
  --pending_;
  update_hold();
}

void PoolCore::stream_idle(bool idle) noexcept {
  idle_streams_ += idle ? std::size_t{1} : SIZE_MAX;
  update_hold();
}

// ---- submit ----

bool PoolCore::full() const {
  loop_->check_thread();
  return is_full();
}

bool PoolCore::is_full() const noexcept {
  return (options_.max_queue > 0 && queue_.size() >= options_.max_queue) ||
         (options_.max_queue_bytes > 0 && queue_bytes_ >= options_.max_queue_bytes);
}

Call PoolCore::call(Writer& argument, Answer answer, const CallOptions& options) {
  check_open();
  const std::chrono::milliseconds limit = deadline_of(options, options_.child);
  if (argument.size() - 1 > max_message_)
    return refuse(
        Error(Errc::too_large, "too large: the message has " + std::to_string(argument.size() - 1) +
                                   " bytes, and the limit is " + std::to_string(max_message_)),
        std::move(answer));
  if (is_full()) {
    refused_ = true;
    return refuse(Error(Errc::overloaded, "overloaded: " + std::to_string(queue_.size()) +
                                              " calls are waiting in the pool"),
                  std::move(answer));
  }
  if (unhealthy_ && now_ns() < start_at_ && !proven())
    return refuse(*unhealthy_, std::move(answer));
  const std::uint64_t id = next_id_++;
  PoolCall& call = calls_[id];
  try {
    argument.share(shared_from);
    call.priority = options.priority;
    if (limit > limit.zero()) call.deadline = deadline_in(limit);
    take_places(id, call);
  } catch (...) {
    calls_.erase(id);
    throw;
  }
  call.answer = std::move(answer);
  call.argument = std::move(argument);
  call.repeats_left = options.retries.value_or(options_.child.retries);
  began();
  enqueue(id, call);
  try {
    make_way(options.priority);
  } catch (const std::bad_alloc&) {
    pump_again();
  }
  pump();
  return Call(weak_from_this(), id);
}

// Fails: std::bad_alloc, and the callback is not called.
Call PoolCore::refuse(const Error& error, Answer answer) {
  check_open();
  auto late = std::make_unique<LateAnswer>(LateAnswer{std::move(answer), error});
  loop_->reserve_deferred(1);
  began();
  ++counts_.failed;
  complete_later(std::move(late));
  return Call(weak_from_this(), next_id_++);
}

// For a call that is counted in `pending_`.
void PoolCore::complete_later(std::unique_ptr<LateAnswer> late) noexcept {
  loop_->defer([self = shared_from_this(), late = std::move(late)] {
    self->ended();  // first: a callback may throw
    self->end_if_closed();
    late->answer(nullptr, &late->error);
  });
}

// ---- waiting calls ----

void PoolCore::take_places(std::uint64_t id, PoolCall& call) {
  PoolQueue queue;
  queue.emplace(key_of(id, call), &call);
  call.place = queue.extract(queue.begin());
  if (call.deadline == no_deadline) return;
  PoolDeadlines deadlines;
  deadlines.emplace(call.deadline, id);
  call.late = deadlines.extract(deadlines.begin());
}

// A call that comes back gets its old place, because the queue is in order of ids.
void PoolCore::enqueue(std::uint64_t id, PoolCall& call) noexcept {
  call.worker.reset();
  call.since = now_ns();
  queue_.insert(queue_.end(), std::move(call.place));
  queue_bytes_ += call.argument.size();
  if (call.deadline == no_deadline) return;
  call.late.value() = {call.deadline, id};
  deadlines_.insert(std::move(call.late));
  wake_at(call.deadline);
}

void PoolCore::dequeue(std::uint64_t id, PoolCall& call) noexcept {
  call.place = queue_.extract(key_of(id, call));
  queue_bytes_ -= call.argument.size();
  if (call.deadline != no_deadline) call.late = deadlines_.extract({call.deadline, id});
}

void PoolCore::check_drained() noexcept {
  if (!refused_ || stage_ != Stage::open) return;
  if (queue_.size() > options_.max_queue / 2 && options_.max_queue > 0) return;
  if (queue_bytes_ > options_.max_queue_bytes / 2 && options_.max_queue_bytes > 0) return;
  try {
    loop_->defer([self = shared_from_this()] { self->drain_(); });
    refused_ = false;
  } catch (const std::bad_alloc&) {
    pump_again();
  }
}

// Fails: std::bad_alloc, and the call waits as before.
void PoolCore::give_up_waiting(std::uint64_t id, const Error& error) {
  auto late = std::make_unique<LateAnswer>(LateAnswer{{}, error});
  loop_->reserve_deferred(1);
  PoolCall& call = calls_.at(id);
  dequeue(id, call);
  ++counts_.failed;
  late->answer = std::move(call.answer);
  complete_later(std::move(late));
  calls_.erase(id);
  check_drained();
}

void PoolCore::fail_waiting(const Error& error) {
  call_later(on_ready_, error);
  while (!queue_.empty()) give_up_waiting(queue_.begin()->first.second, error);
  const std::vector<std::shared_ptr<MapCore>> maps = maps_;
  for (const auto& map : maps) map->stop(error);
}

void PoolCore::cancel(std::uint64_t id) {
  loop_->check_thread();
  const auto found = loop_->alive() ? calls_.find(id) : calls_.end();
  if (found == calls_.end()) return;
  if (!found->second.worker)
    return give_up_waiting(id, Error(Errc::cancelled, "cancelled: Call::cancel()"));
  found->second.worker->cancel_sent(id);
  found->second.cancelled = true;
}

void PoolCore::set_deadline(std::uint64_t id, std::chrono::nanoseconds time) {
  loop_->check_thread();
  const auto found = loop_->alive() ? calls_.find(id) : calls_.end();
  if (found == calls_.end()) return;
  PoolCall& call = found->second;
  const std::int64_t at = deadline_in(time);
  PoolDeadlines one;
  one.emplace(at, id);
  if (call.worker) call.worker->set_deadline_of_sent(id, time);
  if (!call.worker && call.deadline != no_deadline) deadlines_.erase({call.deadline, id});
  call.deadline = at;
  call.late = one.extract(one.begin());
  if (call.worker || at == no_deadline) return;
  deadlines_.insert(std::move(call.late));
  wake_at(at);
}

// ---- answers ----

void PoolCore::on_result(PoolWorker& worker, const PoolWorker::Sent& what, Reader* in,
                         const Error* error) {
  const auto keep = shared_from_this();
  const auto keep_worker = worker.shared_from_this();
  unsend(what);
  const std::int64_t now = now_ns();
  const std::int64_t spent = now - std::max(what.sent_at, worker.last_answer_at);
  if (in || worker.begun) {
    worker.begun = true;
    if (worker.started_at > failed_at_) {
      failed_starts_ = 0;
      unhealthy_.reset();
    }
  }
  if (in) record_run(worker, what, now);
  if (in || error->delivery() == Delivery::started) worker.answered += what.items;
  worker.last_answer_at = now;
  if (!what.chunk) return call_answered(worker, what.id, in, error);

  const auto found = chunks_.find(what.id);
  Chunk chunk = std::move(found->second);
  chunks_.erase(found);
  const auto map = chunk.map;
  if (in) {
    check_worn(worker, now);
    fill(worker);  // first: the child works while the results are delivered
    map->answered(std::move(chunk), *in, spent);
  } else {
    map->failed(std::move(chunk), *error);
    fill(worker);
  }
  end_if_closed();
}

Error PoolCore::explained(const Error& error) const noexcept try {
  return options_.child.backtrace ? symbolised(patterns_.modules(), error) : error;
} catch (const std::bad_alloc&) {
  return error;
}

void PoolCore::call_answered(PoolWorker& worker, std::uint64_t id, Reader* in, const Error* error) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return fill(worker);  // a shutdown() has ended it
  PoolCall& waiting = found->second;
  if (error && again(id, waiting, *error)) return fill(worker);
  PoolCall call = std::move(waiting);
  calls_.erase(found);
  ++(in ? counts_.done : counts_.failed);
  check_worn(worker, worker.last_answer_at);
  fill(worker);
  ended();
  end_if_closed();
  call.answer(in, error);  // last: the callback may do anything
}

// A call that no child has begun is sent to another one; so is one that may be made twice.
bool PoolCore::again(std::uint64_t id, PoolCall& call, const Error& error) {
  if (call.cancelled || stage_ >= Stage::stopping) return false;
  if (error.delivery() == Delivery::started) {
    const bool torn = error.code() == Errc::bad_message;  // a part of the answer was received
    const bool ended = error.exit() && (is_end_of_child(error.code()) || torn);
    if (!ended || !options_.child.idempotent || call.repeats_left == 0) return false;
    --call.repeats_left;
  } else if (!is_end_of_child(error.code()) && error.code() != Errc::cancelled) {
    return false;
  }
  ++counts_.retried;
  enqueue(id, call);
  return true;
}

// ---- interface of a Pool ----

std::vector<std::shared_ptr<Replicas>> snapshots_of(const PoolOptions& options,
                                                    const std::shared_ptr<Loop>& loop) {
  std::vector<std::shared_ptr<Replicas>> snapshots;
  for (const Snapshot* snapshot : options.snapshots)
    snapshots.push_back(Replicas::choose(snapshot, loop));
  if (snapshots.empty()) snapshots.push_back(Replicas::choose(options.child.snapshot, loop));
  return snapshots;
}

std::shared_ptr<PoolInterface> start_pool(Reactor& reactor, Task task, const PoolOptions& options) {
  const std::shared_ptr<Loop>& loop = reactor.loop();
  loop->check_thread();
  auto core = make_on<PoolCore>(loop, loop, snapshots_of(options, loop), std::move(task), options);
  core->begin();
  return core;
}

}  // namespace evparallel::detail
