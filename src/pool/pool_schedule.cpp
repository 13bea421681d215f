// pool_schedule.cpp - which child gets a call, and what is taken back from a slow one.
// Runs in: parent.  Licence: see COPYING.
//
// A child that answers one call and only then gets the next one is idle for a round trip.  So
// several short calls are sent ahead; and if a child turns out to be slow while another one is
// idle, the calls that it has not begun are taken back.
#include "pool/pool_core.hpp"

#include <algorithm>
#include <new>

namespace evparallel::detail {

namespace {

constexpr double short_call_ns = 1e6;
constexpr double long_call_ns = 1e7;
constexpr std::size_t most_ahead = 64;
constexpr double worth_a_child_ns = 1e5;
// A child that runs one call for at least this time is slow.
constexpr std::int64_t slow_ns = 1000000;
// While the answer to one chunk is sent, the child has the other.
constexpr std::uint32_t chunks_ahead = 2;
constexpr unsigned calls_between_chunks = 64;

}  // namespace

std::size_t PoolCore::call_depth() const noexcept {
  if (run_ns_ <= 0) return 1;
  if (run_ns_ >= short_call_ns) return run_ns_ < long_call_ns ? 2 : 1;
  const double fit = 2 * short_call_ns / run_ns_;
  return fit > static_cast<double>(most_ahead) ? most_ahead : static_cast<std::size_t>(fit);
}

std::int64_t PoolCore::slow_after() const noexcept {
  return std::max(slow_ns, static_cast<std::int64_t>(2 * run_ns_));
}

// The number of items that it may still be sent.
std::size_t PoolCore::allowance(const PoolWorker& worker) const noexcept {
  if (worker.spent) return 0;
  if (options_.max_calls == 0) return SIZE_MAX;
  const std::uint64_t most = options_.max_calls;
  return static_cast<std::size_t>(most - std::min<std::uint64_t>(most, worker.sent_total));
}

bool PoolCore::accepts(const PoolWorker& worker, Next what, std::int64_t now) const noexcept {
  if (worker.stage != PoolWorker::Stage::ready || worker.standby || worker.has_lost_calls() ||
      !worker.usable() || allowance(worker) == 0)
    return false;
  const std::size_t load = worker.sent.size();
  if (load == 0) return true;
  if (now - worker.busy_since() > slow_after() && worker.chunks == 0) return false;
  if (what == Next::chunk) {
    const bool limited = options_.child.deadline > options_.child.deadline.zero();
    return worker.chunks < (limited ? 1 : chunks_ahead);
  }
  return load < (worker.chunks > 0 ? 2 : call_depth());
}

// The child that became idle last, so that the others can end; else the one with the least work.
PoolWorker* PoolCore::choose(Next what) noexcept {
  const std::int64_t now = now_ns();
  for (std::size_t i = idle_.size(); i-- > 0;)
    if (accepts(*idle_[i], what, now)) return idle_[i];
  PoolWorker* best = nullptr;
  for (const auto& worker : workers_)
    if ((!best || worker->sent.size() < best->sent.size()) && accepts(*worker, what, now))
      best = worker.get();
  return best;
}

// The higher priority comes first.  Calls and chunks of one priority alternate, and so do maps.
PoolCore::Next PoolCore::next_work() {
  std::size_t turn = maps_.size();
  for (std::size_t i = 0; i < maps_.size(); ++i) {
    const std::size_t at = (map_turn_ + i) % maps_.size();
    if (maps_[at]->has_chunk() &&
        (turn == maps_.size() || maps_[at]->priority() > maps_[turn]->priority()))
      turn = at;
  }
  const bool chunk = turn < maps_.size();
  if (chunk) map_turn_ = turn;
  if (queue_.empty() || stage_ >= Stage::stopping) return chunk ? Next::chunk : Next::none;
  const int priority = queue_.begin()->second->priority;
  if (!chunk || priority > maps_[turn]->priority()) return Next::call;
  if (priority < maps_[turn]->priority()) return Next::chunk;
  return calls_in_a_row_ < calls_between_chunks ? Next::call : Next::chunk;
}

// The number of further children that would have work.
std::size_t PoolCore::demand() const noexcept {
  std::size_t wanted = queue_.size();
  for (const auto& map : maps_) wanted += std::min(map->wanted(), worker_limit());
  if (run_ns_ <= 0 || run_ns_ > worth_a_child_ns)
    for (const auto& worker : workers_)
      if (worker->sent.size() > 1) wanted += worker->sent.size() - 1;
  std::size_t coming = 0;
  for (const auto& worker : workers_)
    coming += !worker->standby && (worker->stage == PoolWorker::Stage::starting || worker->free());
  return wanted - std::min(wanted, coming);
}

void PoolCore::pump() {
  pump_failed_ = false;
  try {
    pump_now();
  } catch (const std::bad_alloc&) {
    pump_again();
  }
}

// For lack of memory something is left to do.
void PoolCore::pump_again() noexcept {
  pump_failed_ = true;
  loop_->retry_later();
}

void PoolCore::retry() {
  const auto keep = shared_from_this();
  call_due(due_.size());
  while (!ended_maps_.empty() && !loop_->interrupted()) {
    const std::shared_ptr<MapCore> map = std::move(ended_maps_.back());
    ended_maps_.pop_back();
    loop_->call([&map] { map->finish(); });
  }
  if (stage_ == Stage::over) {
    if (!calls_.empty()) answer_dropped_calls();
    return leave_if_done();
  }
  for (std::size_t i = 0; i < maps_.size(); ++i) {
    const std::shared_ptr<MapCore> map = maps_[i];
    map->retry();
  }
  const auto has_ended = [](const auto& worker) { return worker->ending && worker->ending->known; };
  if (std::any_of(workers_.begin(), workers_.end(), has_ended)) return after_ends();
  if (!pump_failed_ && !pump_deferred_) return;
  pump_deferred_ = false;
  check_drained();
  if (!deadlines_.empty()) wake_at(deadlines_.begin()->first);
  pump();
  end_if_closed();
}

void PoolCore::pump_now() {
  for (;;) {
    const Next next = next_work();
    if (next == Next::none) break;
    PoolWorker* const worker = choose(next);
    if (!worker) break;
    if (next == Next::call)
      send_call(*worker);
    else if (must_wait_for_turn())
      break;
    else
      send_chunk(*worker);
  }
  start_wanted();
  if (replacement_ || rolling_) advance_replacement();
  balance();
}

void PoolCore::pump_later() noexcept {
  if (!loop_->alive() || std::exchange(pump_deferred_, true)) return;
  loop_->defer_or_retry(*this, [self = shared_from_this()] {
    self->pump_deferred_ = false;
    if (self->stage_ == Stage::over) return;
    self->pump();
    self->end_if_closed();
  });
}

// Gives the next work to a child that has answered.
void PoolCore::fill(PoolWorker& worker) {
  try {
    fill_now(worker);
  } catch (const std::bad_alloc&) {
    pump_again();
  }
}

void PoolCore::fill_now(PoolWorker& worker) {
  if (stage_ == Stage::over) return;
  if (worker.stage == PoolWorker::Stage::ready) {
    for (;;) {
      const Next next = next_work();
      if (next == Next::none || !accepts(worker, next, worker.last_answer_at)) break;
      if (next == Next::call)
        send_call(worker);
      else if (must_wait_for_turn())
        break;
      else
        send_chunk(worker);
    }
    if (worker.free()) set_idle(worker);
  }
  check_drained();
  if (!queue_.empty() || !idle_.empty() || worker.stage != PoolWorker::Stage::ready) pump_later();
}

// ---- ranges that may wait for input ----

// Before such a pull the answers that have come must be delivered: so there is one in each turn of
// the loop, after everything else.  And what was sent must have left, also what was sent in this
// turn: a chunk that another child gave back, or a call.
bool PoolCore::must_wait_for_turn() {
  if (!maps_[map_turn_]->may_wait()) return false;
  if (std::exchange(pulls_, false)) {
    for (const auto& worker : workers_) worker->flush();
    return false;
  }
  if (pull_due_) return true;
  pull_turn_.add_in(std::chrono::nanoseconds::zero());
  pull_due_ = true;
  return true;
}

// A timer comes after the sockets of its turn; and this after what their callbacks have deferred.
// The rest of a large answer takes further turns; those of other calls could go on for ever.
void PoolCore::on_pull_turn() {
  const auto receives = [this](const auto& worker) {
    const std::uint64_t id = worker->chunk_under_way();
    return id != 0 && chunks_.at(id).map->may_wait();
  };
  if (std::any_of(workers_.begin(), workers_.end(), receives))
    return pull_turn_.add_in(std::chrono::milliseconds(1));
  loop_->defer_or_retry(*this, [self = shared_from_this()] { self->pull(); });
}

void PoolCore::pull() {
  pull_due_ = false;
  if (stage_ == Stage::over) return;
  pulls_ = true;
  pump();
  pulls_ = false;
  end_if_closed();
}

// ---- sending ----

bool PoolCore::send_call(PoolWorker& worker) {
  const std::uint64_t id = queue_.begin()->first.second;
  PoolCall& call = *queue_.begin()->second;
  const std::int64_t now = now_ns();
  Writer argument = call.argument;
  sent(worker, {id, 0, now, 1, call.priority, false}, argument, call.deadline);
  dequeue(id, call);
  call.worker = worker.shared_from_this();
  counts_.wait.add(now - call.since);
  ++calls_in_a_row_;
  if (options_.max_calls > 0) check_worn(worker, now);
  return true;
}

bool PoolCore::send_chunk(PoolWorker& worker) {
  const std::shared_ptr<MapCore> map = maps_[map_turn_];
  if (!map->fits(allowance(worker))) {
    // The child is worn: it may begin fewer items than the chunk has that came back from another
    // child.
    worker.sent_total = options_.max_calls;
    check_worn(worker, now_ns());
    return false;
  }
  map_turn_ = (map_turn_ + 1) % maps_.size();
  Chunk chunk;
  if (!map->next_chunk(chunk, allowance(worker))) return false;
  calls_in_a_row_ = 0;
  const std::uint64_t id = keep_chunk(chunk);
  const auto& limit = options_.child.deadline;
  const std::int64_t now = now_ns();
  try {
    const Chunk& kept = chunks_.at(id);
    Writer argument = kept.argument;
    sent(worker, {id, 0, now, kept.count, map->priority(), true}, argument,
         limit > limit.zero() ? deadline_in(limit) : no_deadline);
  } catch (...) {
    return_chunk(id);
    throw;
  }
  if (options_.max_calls > 0) check_worn(worker, now);
  return true;
}

std::uint64_t PoolCore::keep_chunk(Chunk& chunk) {
  const std::uint64_t id = next_id_++;
  try {
    Chunk& place = chunks_[id];
    place = std::move(chunk);
  } catch (...) {
    const std::shared_ptr<MapCore> map = chunk.map;
    map->take_back(std::move(chunk));
    throw;
  }
  return id;
}

void PoolCore::return_chunk(std::uint64_t id) noexcept {
  const auto kept = chunks_.extract(id);
  const std::shared_ptr<MapCore> map = kept.mapped().map;
  map->take_back(std::move(kept.mapped()));
}

void PoolCore::sent(PoolWorker& worker, const PoolWorker::Sent& what, Writer& argument,
                    std::int64_t deadline) {
  std::size_t& of_priority = sent_priorities_[what.priority];
  ++of_priority;
  try {
    worker.send(what, argument, deadline);
  } catch (...) {
    if (--of_priority == 0) sent_priorities_.erase(what.priority);
    throw;
  }
  set_busy(worker);
  sent_items_ += what.items;
}

void PoolCore::unsend(const PoolWorker::Sent& what) noexcept {
  sent_items_ -= what.items;
  const auto found = sent_priorities_.find(what.priority);
  if (--found->second == 0) sent_priorities_.erase(found);
}

void PoolCore::record_run(PoolWorker& worker, const PoolWorker::Sent& what,
                          std::int64_t now) noexcept {
  if (what.chunk) return;
  const std::int64_t spent = now - std::max(what.sent_at, worker.last_answer_at);
  counts_.run.add(spent);
  const double time = static_cast<double>(std::max<std::int64_t>(spent, 1));
  run_ns_ = run_ns_ <= 0 ? time : run_ns_ + (time - run_ns_) / 16;
}

// ---- taking back ----

void PoolCore::take_back(PoolWorker& worker, std::int64_t below) {
  for (const PoolWorker::Sent& what : worker.take_back_all(below)) {
    unsend(what);
    if (what.chunk) {
      return_chunk(what.id);
    } else {
      enqueue(what.id, calls_.at(what.id));
    }
  }
  worker.end_if_done();
}

// If a child is idle, it gets what waits behind a slow call of another one.
void PoolCore::balance() {
  balance_at_ = no_deadline;
  if (idle_.empty() || sent_items_ == 0 || stage_ >= Stage::stopping) return;
  const std::int64_t now = now_ns();
  bool taken = false;
  for (const auto& worker : workers_) {
    if (worker->sent.size() < 2 || worker->stage == PoolWorker::Stage::ended) continue;
    const std::int64_t slow_at = worker->busy_since() + slow_ns;
    if (slow_at > now) {
      balance_at_ = std::min(balance_at_, slow_at);
      continue;
    }
    const std::size_t before = worker->sent.size();
    take_back(*worker, INT64_MAX);
    taken = taken || worker->sent.size() < before;
  }
  if (balance_at_ != no_deadline) wake_at(balance_at_);
  if (taken) pump_later();
}

// For a call with a higher priority than those that were sent ahead.
void PoolCore::make_way(int priority) {
  if (sent_priorities_.empty() || sent_priorities_.begin()->first >= priority || !idle_.empty())
    return;
  for (const auto& worker : workers_)
    if (worker->stage == PoolWorker::Stage::ready) take_back(*worker, priority);
}

// ---- idle children ----

void PoolCore::set_idle(PoolWorker& worker) {
  if (worker.standby || std::find(idle_.begin(), idle_.end(), &worker) != idle_.end()) return;
  idle_.push_back(&worker);
  if (options_.idle_timeout.count() > 0)
    wake_at(deadline_from(worker.last_answer_at, options_.idle_timeout));
}

void PoolCore::set_busy(PoolWorker& worker) noexcept {
  const auto found = std::find(idle_.rbegin(), idle_.rend(), &worker);
  if (found != idle_.rend()) idle_.erase(std::next(found).base());
}

}  // namespace evparallel::detail
