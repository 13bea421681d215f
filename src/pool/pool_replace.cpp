// pool_replace.cpp - replaces the children of a pool, and its function or options, by and by.
// Runs in: parent.  Licence: see COPYING.
//
// One new child is on trial; until it is ready nothing changes.  Then it takes the place of an old
// child, and each other old child gets a successor, as a worn one does.
#include "pool/pool_core.hpp"

#include <algorithm>

namespace evparallel::detail {

namespace {

// The part of the children that may be started as successors at the same time, so that a
// replacement needs little memory more.
constexpr std::size_t part_at_once = 4;

}  // namespace

void PoolCore::replace(std::optional<Task> task, const std::optional<PoolOptions>& options) {
  loop_->check_thread();
  check_open();
  auto next = std::make_unique<Replacement>();
  next->options = options ? completed(*options) : options_;
  const auto snapshots = options ? snapshots_of(*options, loop_) : patterns_.snapshots();
  for (const auto& snapshot : snapshots) snapshot->next(loop_);  // refuses that of another reactor
  next->patterns =
      PoolPatterns(snapshots, task ? std::move(*task) : patterns_.task(), next->options);
  if (replacement_)
    end_replacement(Error(Errc::cancelled, "cancelled: Pool::replace() was called again"));
  replacement_ = std::move(next);
  update_hold();
  pump_later();
}

void PoolCore::advance_replacement() {
  const std::int64_t now = now_ns();
  if (on_trial() && !replacement_->trial) {
    if (now < replacement_->start_at)
      wake_at(replacement_->start_at);
    else
      start_trial();
  }
  if (rolling_) roll(now);
}

void PoolCore::roll(std::int64_t now) {
  if (now < start_at_) wake_at(start_at_);
  bool some_left = false;
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    const auto worker = workers_[i];
    if (!worker->outdated) continue;
    some_left = true;
    if (worker->stage != PoolWorker::Stage::ready) continue;
    if (active() > worker_limit())
      retire(*worker);
    else
      check_worn(*worker, now);
    if (!rolling_) return;  // a start has failed
  }
  if (!some_left) end_roll({});
}

bool PoolCore::may_start_successor(const PoolWorker& worker) const noexcept {
  if (!worker.outdated) return true;
  const auto starting = std::count_if(workers_.begin(), workers_.end(), [](const auto& one) {
    return one->standby && one->stage == PoolWorker::Stage::starting;
  });
  return static_cast<std::size_t>(starting) <
         std::max<std::size_t>(worker_limit() / part_at_once, 1);
}

// ---- the trial ----

void PoolCore::start_trial() {
  reserve_worker();
  auto worker = std::make_shared<PoolWorker>(*this, loop_, replacement_->patterns.next());
  try {
    worker->start();
  } catch (const Error& error) {
    worker->abort();
    report_not_started(*worker, error);
    return trial_failed(error);
  }
  ++counts_.started;
  worker->standby = worker->trial = true;
  replacement_->trial = worker.get();
  workers_.push_back(std::move(worker));
}

void PoolCore::trial_failed(const Error& error) {
  Replacement& failed = *replacement_;
  failed.trial = nullptr;
  ++failed.failed_starts;
  if (error.code() == Errc::unknown_function || !failed.patterns.alive())
    return end_replacement(error);  // another child would fail as well
  if (failed.failed_starts >= failed.options.max_failed_starts)
    return end_replacement(unhealthy_after(failed.failed_starts, error));
  failed.start_at = time_after(now_ns(), failed.failed_starts);
  wake_at(failed.start_at);
}

// From now on only children of the new function are started.
void PoolCore::adopt(PoolWorker& trial) {
  trial.trial = false;
  replacement_->trial = nullptr;
  replacement_->adopted = rolling_ = true;
  options_ = replacement_->options;
  patterns_ = std::move(replacement_->patterns);
  max_message_ = std::min(max_message_, options_.child.max_message);
  failed_starts_ = 0;
  start_at_ = 0;
  unhealthy_.reset();
  PoolWorker* replaced = nullptr;
  for (const auto& worker : workers_) {
    if (worker.get() == &trial) continue;
    worker->outdated = true;
    worker->successor = nullptr;
    if (worker->stage == PoolWorker::Stage::starting ||
        (worker->stage == PoolWorker::Stage::ready && worker->standby))
      retire(*worker);
    if (worker->stage != PoolWorker::Stage::ready) continue;
    worker->worn = true;
    if (!replaced || (worker->free() && !replaced->free())) replaced = worker.get();
  }
  if (!replaced) return take_over(trial);
  replaced->successor = &trial;
  ++counts_.recycled;
  check_worn(*replaced, now_ns());
}

// ---- the end ----

void PoolCore::end_replacement(const Result<void>& result) {
  const auto over = std::move(replacement_);
  if (over->trial && over->trial->stage <= PoolWorker::Stage::ready) retire(*over->trial);
  call_later(on_replaced_, result);
  pump_later();
}

// With an error: the new function has failed after its trial, and the old children that are left go
// on.
void PoolCore::end_roll(const Result<void>& result) {
  if (!std::exchange(rolling_, false)) return;
  max_message_ = options_.child.max_message;
  if (replacement_ && replacement_->adopted) end_replacement(result);
  for (const auto& worker : workers_) {
    if (!std::exchange(worker->outdated, false)) continue;
    worker->worn = false;
    if (PoolWorker* const successor = std::exchange(worker->successor, nullptr))
      if (successor->stage <= PoolWorker::Stage::ready) retire(*successor);
  }
}

}  // namespace evparallel::detail
