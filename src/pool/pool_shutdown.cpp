// pool_shutdown.cpp - how a pool ends, and its statistics.
// Runs in: parent.  Licence: see COPYING.
#include "base/negative.hpp"
#include "pool/pool_core.hpp"

#include <algorithm>

namespace evparallel::detail {

// ---- the end of the pool ----

void PoolCore::close() {
  loop_->check_thread();
  const bool was_open = stage_ == Stage::open;
  if (was_open) stage_ = Stage::closing;
  if (!loop_->alive()) return;
  if (was_open) {
    const Error closed(Errc::cancelled, "cancelled: the pool was closed");
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
void PoolCore::end_stopping() {
  stop_at_ = no_deadline;
  const std::vector<std::shared_ptr<MapCore>> maps = maps_;
  for (const auto& map : maps) map->cancel();
  for (auto& item : calls_)
    complete_later(Error(Errc::cancelled, "cancelled: the pool was shut down")
                       .with_delivery(Delivery::started),
                   std::move(item.second.answer));
  counts_.failed += calls_.size();
  calls_.clear();
  forget_work();
  const std::vector<std::shared_ptr<PoolWorker>> workers = workers_;
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
  std::unordered_map<std::uint64_t, PoolCall> calls;
  calls.swap(calls_);
  for (const auto& worker : take_workers()) worker->abort();
  if (!loop_->alive()) return;
  replacement_.reset();
  const Error dropped(Errc::cancelled, "cancelled: the pool was dropped");
  call_later(on_ready_, dropped);
  call_later(on_replaced_, dropped);
  for (auto& item : calls) {
    loop_->hold();
    loop_->defer([loop = loop_, answer = std::move(item.second.answer),
                  error = dropped.with_delivery(
                      item.second.worker ? Delivery::sent : Delivery::not_sent)]() mutable {
      loop->release();  // first: a callback may throw
      answer(nullptr, &error);
    });
    ended();
  }
  unregister();
}

void PoolCore::on_loop_destroyed() noexcept {
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
  began();
  if (source == MapCore::Source::pushed) stream_idle(true);
  maps_.push_back(map);
  pump_later();
  return map;
}

void PoolCore::forget_map(const MapCore& map) {
  const auto found = std::find_if(maps_.begin(), maps_.end(),
                                  [&map](const auto& one) { return one.get() == &map; });
  if (found == maps_.end()) return;
  maps_.erase(found);
  map_turn_ = 0;
  give_up_chunks(map);
  ended();
  pump_later();
}

// Takes back what the children have not begun, without a callback.
void PoolCore::give_up_chunks(const MapCore& map) {
  for (const auto& worker : workers_) {
    const std::vector<PoolWorker::Sent> sent = worker->sent;
    for (const PoolWorker::Sent& what : sent) {
      if (!what.chunk || chunks_.at(what.id).map.get() != &map) continue;
      if (!worker->take_back_sent(what.id)) {
        worker->cancel_sent(what.id);
        continue;
      }
      unsend(what);
      chunks_.erase(what.id);
    }
  }
}

}  // namespace evparallel::detail
