// pool_shutdown.cpp - how a pool ends, and its statistics.
// Runs in: parent.  Licence: see COPYING.
#include "base/negative.hpp"
#include "pool/pool_core.hpp"

#include <algorithm>
#include <new>

namespace evparallel::detail {

// ---- the end of the pool ----

void PoolCore::close() {
  loop_->check_thread();
  const Error closed(Errc::cancelled, "cancelled: the pool was closed");
  const bool was_open = stage_ == Stage::open;
  if (was_open) stage_ = Stage::closing;
  if (!loop_->alive()) return;
  if (was_open) {
    call_later(on_ready_, closed);
    if (replacement_) end_replacement(closed);
  }
  pump_later();
}

void PoolCore::end_if_closed() {
  if (stage_ != Stage::closing && stage_ != Stage::stopping) return;
  if (pending_ > 0) return;
  for (const auto& worker : workers_)
    if (worker->stage <= PoolWorker::Stage::ready) retire(*worker);
  stop_at_ = no_deadline;
  if (is_over()) call_later(on_closed_, {});
}

void PoolCore::shutdown(std::chrono::milliseconds grace) {
  loop_->check_thread();
  refuse_negative("Pool::shutdown", grace);
  if (stage_ >= Stage::stopping) return;
  stage_ = Stage::stopping;
  if (!loop_->alive()) return;
  const Error shut_down(Errc::cancelled, "cancelled: the pool was shut down");
  call_later(on_ready_, shut_down);
  if (replacement_) end_replacement(shut_down);
  while (!queue_.empty()) give_up_waiting(queue_.begin()->first.second, shut_down);
  for (const auto& worker : workers_) take_back(*worker, INT64_MAX);
  const std::vector<std::shared_ptr<MapCore>> maps = maps_;
  for (const auto& map : maps) map->stop(std::nullopt);
  while (!queue_.empty()) give_up_waiting(queue_.begin()->first.second, shut_down);
  stop_at_ = deadline_in(grace);
  wake_at(stop_at_);
  pump_later();
}

// The calls that still run have had their time.
// Fails: std::bad_alloc, and the calls that are left are to be ended.
void PoolCore::end_stopping() {
  const std::vector<std::shared_ptr<MapCore>> maps = maps_;
  const std::vector<std::shared_ptr<PoolWorker>> workers = workers_;
  for (const auto& map : maps) map->cancel();
  const Error shut_down(Errc::cancelled, "cancelled: the pool was shut down");
  while (!calls_.empty()) {
    auto late =
        std::make_unique<LateAnswer>(LateAnswer{{}, shut_down.with_delivery(Delivery::started)});
    loop_->reserve_deferred(1);
    late->answer = std::move(calls_.begin()->second.answer);
    complete_later(std::move(late));
    calls_.erase(calls_.begin());
    ++counts_.failed;
  }
  stop_at_ = no_deadline;
  forget_work();
  for (const auto& worker : workers)
    if (worker->stage != PoolWorker::Stage::ended) worker->give_up(options_.child.grace);
}

// No answer of a child is expected any more.
void PoolCore::forget_work() noexcept {
  idle_.clear();
  chunks_.clear();
  queue_.clear();
  queue_bytes_ = 0;
  deadlines_.clear();
  sent_priorities_.clear();
  sent_items_ = 0;
}

// Removes all children; nothing that they send is handled any more.
std::vector<std::shared_ptr<PoolWorker>> PoolCore::take_workers() noexcept {
  forget_work();
  return std::exchange(workers_, {});
}

void PoolCore::abort() noexcept {
  if (loop_->in_its_thread()) return abort_here();
  loop_->call_in_its_thread([self = shared_from_this()] { self->abort_here(); });
}

void PoolCore::abort_here() noexcept {
  if (stage_ == Stage::over) return;
  stage_ = Stage::over;
  clock_.unset();
  pull_turn_.unset();
  drain_.release();
  on_worker_.release();
  const OnceCallbacks never_called = std::exchange(on_closed_, {});
  const std::vector<std::shared_ptr<MapCore>> maps = std::exchange(maps_, {});
  for (const auto& map : maps) {
    map->pool_gone();
    ended();
  }
  for (const auto& worker : take_workers()) worker->abort();
  if (!loop_->alive()) return calls_.clear();
  replacement_.reset();
  const Error dropped = error_or_no_memory(
      Delivery::not_sent, [] { return Error(Errc::cancelled, "cancelled: the pool was dropped"); });
  self_ = weak_from_this().lock();
  if (!self_) return unregister();
  call_later(on_ready_, dropped);
  call_later(on_replaced_, dropped);
  if (calls_.empty()) return leave_if_done();
  loop_->defer_or_retry(*this, [self = self_] { self->answer_dropped_calls(); });
}

void PoolCore::leave_if_done() noexcept {
  if (!self_ || !calls_.empty() || !due_.empty() || !ended_maps_.empty()) return;
  const auto last = std::move(self_);
  unregister();
}

// Those of a dropped pool.
void PoolCore::answer_dropped_calls() {
  const auto keep = shared_from_this();
  while (!calls_.empty() && !loop_->interrupted()) {
    const Delivery far = calls_.begin()->second.worker ? Delivery::sent : Delivery::not_sent;
    const Error dropped = error_or_no_memory(far, [far] {
      return Error(Errc::cancelled, "cancelled: the pool was dropped").with_delivery(far);
    });
    const auto call = calls_.extract(calls_.begin());
    ended();  // first: a callback may throw
    loop_->call([&] { call.mapped().answer(nullptr, &dropped); });
  }
  if (!calls_.empty())
    return loop_->defer_or_retry(*this, [self = keep] { self->answer_dropped_calls(); });
  leave_if_done();
}

void PoolCore::on_loop_destroyed() noexcept {
  const auto keep = weak_from_this().lock();
  self_.reset();
  stage_ = Stage::over;
  clock_.unset();
  pull_turn_.unset();
  // The callbacks are destroyed without a call; they may own handles whose destructors come back
  // here.
  const std::vector<std::shared_ptr<MapCore>> maps = std::exchange(maps_, {});
  std::unordered_map<std::uint64_t, PoolCall> calls;
  calls.swap(calls_);
  const OnceCallbacks on_ready = std::exchange(on_ready_, {});
  const OnceCallbacks on_replaced = std::exchange(on_replaced_, {});
  const OnceCallbacks on_closed = std::exchange(on_closed_, {});
  const OnceCallbacks due = std::exchange(due_, {});
  ended_maps_.clear();
  drain_.release();
  on_worker_.release();
  for (const auto& map : maps) map->on_loop_destroyed();
  for (const auto& worker : take_workers()) worker->abort();
  pending_ = 0;
}

// ---- statistics ----

PoolStats PoolCore::stats() const {
  loop_->check_thread();
  PoolStats stats;
  stats.queued = queue_.size();
  stats.running = sent_items_;
  stats.done = counts_.done;
  stats.failed = counts_.failed;
  stats.retried = counts_.retried;
  stats.started = counts_.started;
  stats.respawned = counts_.respawned;
  stats.recycled = counts_.recycled;
  stats.usage = counts_.usage;
  stats.wait = counts_.wait.percentiles();
  stats.run = counts_.run.percentiles();
  const std::int64_t now = now_ns();
  for (const auto& worker : workers_) {
    if (worker->stage == PoolWorker::Stage::ended) continue;
    PoolStats::Worker one;
    one.pid = worker->pid();
    one.ready = worker->stage == PoolWorker::Stage::ready;
    for (const PoolWorker::Sent& what : worker->sent) one.running += what.items;
    one.calls = worker->answered;
    one.age = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::nanoseconds(now - worker->started_at));
    if (one.pid > 0 && loop_->at_home()) one.rss = own_memory(one.pid);
    stats.workers.push_back(one);
  }
  return stats;
}

// ---- maps ----

std::shared_ptr<MapInterface> PoolCore::start_map(MapTask task, MapOptions options) {
  return begin_map(std::move(task), std::move(options), MapCore::Source::range);
}

std::shared_ptr<StreamInterface> PoolCore::start_stream(MapTask task, MapOptions options) {
  return begin_map(std::move(task), std::move(options), MapCore::Source::pushed);
}

std::shared_ptr<MapCore> PoolCore::begin_map(MapTask task, MapOptions options,
                                             MapCore::Source source) {
  check_open();
  auto map = make_on<MapCore>(loop_, *this, loop_, std::move(task), std::move(options), source);
  ended_maps_.reserve(ended_maps_.size() + maps_.size() + 1);
  maps_.push_back(map);
  began();
  if (source == MapCore::Source::pushed) stream_idle(true);
  pump_later();
  return map;
}

void PoolCore::finish_later(std::shared_ptr<MapCore> map) noexcept {
  ended_maps_.push_back(std::move(map));
  loop_->retry_later();
}

void PoolCore::forget_map(const MapCore& map) noexcept {
  const auto found = std::find_if(maps_.begin(), maps_.end(),
                                  [&map](const auto& one) { return one.get() == &map; });
  if (found == maps_.end()) return;
  maps_.erase(found);
  map_turn_ = 0;
  give_up_chunks(map);
  ended();
  pump_later();
}

// Takes back what the children have not begun, without a callback.  What cannot be given up for lack
// of memory is answered, and dropped then.
void PoolCore::give_up_chunks(const MapCore& map) noexcept {
  for (const auto& worker : workers_)
    for (std::size_t i = worker->sent.size(); i-- > 0;) {
      const PoolWorker::Sent what = worker->sent[i];
      if (!what.chunk || chunks_.at(what.id).map.get() != &map) continue;
      try {
        give_up_chunk(*worker, what);
      } catch (const std::bad_alloc&) {
        continue;
      }
    }
}

void PoolCore::give_up_chunk(PoolWorker& worker, const PoolWorker::Sent& what) {
  if (!worker.take_back_sent(what.id)) return worker.cancel_sent(what.id);
  unsend(what);
  chunks_.erase(what.id);
  worker.end_if_done();
}

}  // namespace evparallel::detail
