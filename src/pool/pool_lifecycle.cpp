// pool_lifecycle.cpp - the children of a pool: their start, replacement and end.
// Runs in: parent.  Licence: see COPYING.
#include "base/negative.hpp"
#include "system/usable_cpus.hpp"
#include "spawn/back_off.hpp"
#include "spawn/with_start.hpp"
#include "pool/pool_core.hpp"
#include "pool/pool_format.hpp"

#include <unistd.h>

#include <algorithm>
#include <new>
#include <stdexcept>

namespace evparallel::detail {

namespace {

constexpr std::chrono::milliseconds first_pause{20};
constexpr std::chrono::milliseconds longest_pause{10000};

// The task of its children: the limits of the pool stand behind the function.
Task task_of_child(Task task, const PoolOptions& options) {
  const PoolLimits limits{options.child.max_message};
  task.callable.append(reinterpret_cast<const char*>(&limits), sizeof limits);
  return with_start(std::move(task), options.child.on_start);
}

// Without /proc the growth would never be seen.
void check_measurable(const PoolOptions& options) {
  if (options.max_rss_growth > 0 && own_memory(::getpid()) == 0)
    throw Error(Errc::refused,
                "refused: PoolOptions::max_rss_growth needs the memory use in /proc, which is not "
                "available");
}

}  // namespace

namespace {

const PoolOptions& checked(const PoolOptions& options) {
  refuse_negative("PoolOptions::idle_timeout", options.idle_timeout);
  refuse_negative("PoolOptions::max_age", options.max_age);
  detail::checked(options.child);
  return options;
}

}  // namespace

PoolOptions completed(const PoolOptions& given) {
  check_measurable(checked(given));
  PoolOptions options = given;
  if (options.workers == 0) options.workers = usable_cpus(options.child.affinity);
  options.min_workers = std::min(options.min_workers, options.workers);
  options.snapshots.clear();  // they need not outlive this call
  options.child.snapshot = nullptr;
  return options;
}

PoolPatterns::PoolPatterns(const std::vector<std::shared_ptr<Replicas>>& snapshots, Task task,
                           const PoolOptions& options)
    : task_(std::move(task)) {
  Options child = options.child;
  child.retries = 0;
  child.deadline = child.deadline.zero();
  child.max_message += std::min(chunk_slack, SIZE_MAX - child.max_message);
  const auto child_options = kept(child);
  const auto shared_task = std::make_shared<const Task>(task_of_child(task_, options));
  for (const auto& snapshot : snapshots)
    all_.push_back(
        std::make_shared<const ChildSpec>(ChildSpec{snapshot, shared_task, child_options}));
}

const std::shared_ptr<const ChildSpec>& PoolPatterns::next() noexcept {
  for (std::size_t i = 0; i < all_.size(); ++i) {
    const auto& pattern = all_[turn_++ % all_.size()];
    if (pattern->replicas->alive()) return pattern;
  }
  return all_.front();
}

bool PoolPatterns::alive() const noexcept {
  return std::any_of(all_.begin(), all_.end(),
                     [](const auto& pattern) { return pattern->replicas->alive(); });
}

std::vector<std::shared_ptr<Replicas>> PoolPatterns::snapshots() const {
  std::vector<std::shared_ptr<Replicas>> snapshots;
  for (const auto& pattern : all_) snapshots.push_back(pattern->replicas);
  return snapshots;
}

PoolCore::PoolCore(const std::shared_ptr<Loop>& loop,
                   const std::vector<std::shared_ptr<Replicas>>& snapshots, Task task,
                   const PoolOptions& options)
    : loop_(loop),
      options_(completed(options)),
      patterns_(snapshots, std::move(task), options_),
      max_message_(options_.child.max_message) {
  loop_->check_at_home();
  clock_.set<&PoolCore::on_clock>(*loop_, -1, 0, this);
  pull_turn_.set<&PoolCore::on_pull_turn>(*loop_, -1, 0, this);
  register_with(*loop_);
}

void PoolCore::begin() {
  if (options_.min_workers > 0) pump_later();
}

// ---- start ----

bool PoolCore::work_waits() const noexcept {
  return !queue_.empty() ||
         std::any_of(maps_.begin(), maps_.end(), [](const auto& map) { return map->has_chunk(); });
}

// The number of children that accept calls now or will.
std::size_t PoolCore::active() const noexcept {
  std::size_t count = 0;
  for (const auto& worker : workers_)
    count +=
        !worker->standby && worker->stage <= PoolWorker::Stage::ready && allowance(*worker) > 0;
  return count;
}

bool PoolCore::proven() const noexcept {
  return std::any_of(workers_.begin(), workers_.end(),
                     [](const auto& worker) { return worker->stage == PoolWorker::Stage::ready; });
}

void PoolCore::start_wanted() {
  if (stage_ >= Stage::stopping) return;
  std::size_t count = active();
  if (count >= worker_limit()) return;
  // Calls wait for the new function rather than for another child of the old one.
  if (count == 0 && on_trial()) return;
  // An unhealthy pool tries again only if it is asked.
  const std::size_t least =
      !on_ready_.empty() ? least_ready() : (unhealthy_ ? 0 : options_.min_workers);
  const std::size_t wanted =
      std::max(demand(), least > count && stage_ == Stage::open ? least - count : 0);
  if (wanted == 0) return;
  // The cause of that end may mean that the next start has to wait, or must not happen at all.
  if (std::any_of(workers_.begin(), workers_.end(),
                  [](const auto& worker) { return worker->stage == PoolWorker::Stage::ended; }))
    return;
  if (now_ns() < start_at_) return wake_at(start_at_);
  for (std::size_t left = wanted; left > 0 && count < worker_limit(); --left, ++count)
    if (!start_one(nullptr)) return;
}

// A child that is idle must be listed when there is no memory.
void PoolCore::reserve_worker() {
  const std::size_t count = workers_.size();
  if (workers_.capacity() == count) workers_.reserve(2 * count + 1);
  if (idle_.capacity() <= count) idle_.reserve(2 * count + 1);
}

bool PoolCore::start_one(PoolWorker* replaced) {
  reserve_worker();
  auto worker = std::make_shared<PoolWorker>(*this, loop_, patterns_.next());
  try {
    worker->start();
  } catch (const Error& error) {
    worker->abort();
    report_not_started(*worker, error);
    start_failed(error);
    return false;
  }
  ++counts_.started;
  if (replaced) {
    worker->standby = worker->recycles = true;
    replaced->successor = worker.get();
    ++counts_.recycled;
  } else if (dead_ > 0) {
    --dead_;
    ++counts_.respawned;
  }
  workers_.push_back(std::move(worker));
  wake_when_old(*workers_.back());
  return true;
}

void PoolCore::child_ready(PoolWorker& worker) {
  if (worker.stage != PoolWorker::Stage::starting) return;
  worker.stage = PoolWorker::Stage::ready;
  worker.last_answer_at = now_ns();
  if (options_.child.limits.cpu.count() > 0) worker.cpu_seconds = cpu_time(worker.pid());
  wake_when_old(worker);
  worker.was_ready = true;
  if (worker.pid() > 0) report(worker, WorkerEvent::Kind::ready);
  if (replacement_ && replacement_->trial == &worker) {
    adopt(worker);
  } else if (worker.standby) {
    for (const auto& old : workers_)
      if (old->successor == &worker) check_worn(*old, worker.last_answer_at);
  } else {
    set_idle(worker);
    check_ready();
  }
  pump_later();
}

void PoolCore::child_free(PoolWorker& worker) {
  worker.last_answer_at = now_ns();
  if (worker.stage == PoolWorker::Stage::ready && worker.free()) set_idle(worker);
  pump_later();
}

// ---- the end of a child ----

void PoolCore::child_ended(PoolWorker& worker, const ExitStatus& status, const Error& error) {
  const auto keep = worker.shared_from_this();
  set_busy(worker);
  counts_.add(status.usage);
  const bool expected = worker.stage == PoolWorker::Stage::retiring;
  worker.stage = PoolWorker::Stage::ended;
  worker.lost_calls.reset();
  worker.ending->known = true;
  worker.ending->expected = expected;
  worker.ending->error = error;
  loop_->call([&] { report_end(worker, status, error, expected); });
  for (const auto& other : workers_) {
    if (other->successor == &worker) other->successor = nullptr;
    if (other.get() == worker.successor) other->standby = false;
  }
  // The callbacks of its calls come after this.
  loop_->defer_or_retry(*this, [self = shared_from_this()] { self->after_ends(); });
}

void PoolCore::after_ends() {
  if (stage_ == Stage::over) return;
  for (std::size_t i = 0; i < workers_.size();) {
    const std::shared_ptr<PoolWorker> worker = workers_[i];
    if (!worker->ending || !worker->ending->known) {
      ++i;
      continue;
    }
    workers_.erase(workers_.begin() + static_cast<std::ptrdiff_t>(i));
    if (worker->ending->expected) continue;
    try {
      after_end(worker, worker->ending->error);
    } catch (const std::bad_alloc&) {
      pump_again();
    }
  }
  pump();
  end_if_closed();
}

void PoolCore::after_end(const std::shared_ptr<PoolWorker>& worker, const Error& error) {
  if (worker->trial) {
    if (replacement_ && replacement_->trial == worker.get()) trial_failed(error);
    return;
  }
  if (worker->successor) {
    take_over(*std::exchange(worker->successor, nullptr));
  } else {
    ++dead_;
  }
  if (!worker->begun) start_failed(error);
}

void PoolCore::start_failed(const Error& error) {
  const bool for_ever = error.code() == Errc::unknown_function || !patterns_.alive();
  // Another child would fail as well.  Only after a replacement there may be some that work.
  if (for_ever && !proven()) {
    unhealthy_ = error;  // children that only have to be kept are not tried again
    end_roll(error);
    return fail_waiting(error);
  }
  ++failed_starts_;
  failed_at_ = now_ns();
  start_at_ = time_after(failed_at_, failed_starts_);
  wake_at(start_at_);
  if (!for_ever && failed_starts_ < options_.max_failed_starts) return;
  const Error reason = for_ever ? error : unhealthy_after(failed_starts_, error);
  end_roll(reason);
  if (proven()) return;
  unhealthy_ = reason;
  fail_waiting(reason);
}

std::int64_t time_after(std::int64_t now, unsigned failed_starts) noexcept {
  return deadline_from(now, doubled_pause(first_pause, failed_starts - 1, longest_pause));
}

Error unhealthy_after(unsigned failed_starts, const Error& last) {
  return unhealthy(
      std::to_string(failed_starts) + " children in a row ended before their first call", last);
}

// ---- worn children ----

// The replacement is started before it is needed.  It takes over when it is ready, or when the old
// child must not begin any more calls.
void PoolCore::check_worn(PoolWorker& worker, std::int64_t now) {
  try {
    check_worn_now(worker, now);
  } catch (const std::bad_alloc&) {  // again at the next answer
    return;
  }
}

void PoolCore::check_worn_now(PoolWorker& worker, std::int64_t now) {
  if (worker.stage != PoolWorker::Stage::ready || worker.standby) return;
  if (options_.max_age.count() > 0 && now >= deadline_from(worker.started_at, options_.max_age))
    worker.worn = true;
  if (options_.max_rss_growth > 0) check_memory(worker, now);
  if (options_.child.limits.cpu.count() > 0) check_cpu(worker);
  const std::size_t left = allowance(worker);
  const bool soon =
      options_.max_calls > 0 && left <= std::max<std::size_t>(options_.max_calls / 4, 1);
  if (!worker.worn && !soon) return;
  const bool standby_ready =
      worker.successor && worker.successor->stage == PoolWorker::Stage::ready;
  if (left == 0 || (worker.worn && standby_ready)) return replace(worker);
  if (!worker.successor && stage_ == Stage::open && now >= start_at_ && may_start_successor(worker))
    start_one(&worker);
}

void PoolCore::check_memory(PoolWorker& worker, std::int64_t now) {
  constexpr std::int64_t pause_ns = 50000000;
  if (worker.answered == 0 || worker.pid() == 0) return;
  if (worker.first_memory > 0 && now - worker.looked_at < pause_ns) return;
  worker.looked_at = now;
  const std::size_t memory = own_memory(worker.pid());
  if (worker.first_memory == 0) worker.first_memory = memory;
  if (memory > worker.first_memory && memory - worker.first_memory > options_.max_rss_growth)
    worker.worn = true;
}

// Limits::cpu counts for the life of a child.  It must not end a call that needs no more than others
// do, so the child is replaced while it could still run what it has and one call more.
void PoolCore::check_cpu(PoolWorker& worker) {
  const double used = worker.answered > 0 ? cpu_time(worker.pid()) : 0;
  if (used <= 0) return;
  longest_cpu_ = std::max(longest_cpu_, used - worker.cpu_seconds);
  worker.cpu_seconds = used;
  const auto most = static_cast<double>(options_.child.limits.cpu.count());
  const auto per_call = static_cast<double>(options_.child.limits.cpu_per_call.count());
  const double call = std::max(2 * longest_cpu_, std::min(per_call, most));
  const double ahead = call * static_cast<double>(worker.sent.size() + 1);
  // The kernel looks at this clock only now and then.
  worker.spent = used + ahead > most - most / 16;
  worker.worn = worker.worn || worker.spent || used + std::max(ahead + call, most / 4) > most;
}

// Sends nothing more to the child; it still answers what it has.
void PoolCore::replace(PoolWorker& worker) {
  if (!worker.successor && stage_ == Stage::open && now_ns() >= start_at_ && work_waits())
    start_one(&worker);
  retire(worker);
  pump_later();
}

void PoolCore::retire(PoolWorker& worker) {
  PoolWorker* const next = std::exchange(worker.successor, nullptr);
  set_busy(worker);
  worker.retire();
  if (next) take_over(*next);
}

void PoolCore::take_over(PoolWorker& worker) {
  worker.standby = false;
  if (worker.stage == PoolWorker::Stage::ready) set_idle(worker);
  wake_when_old(worker);
  check_ready();
}

// It may be too old already: while it started, or waited for another's end, age was no reason to
// replace it.
void PoolCore::wake_when_old(const PoolWorker& worker) noexcept {
  if (options_.max_age.count() > 0) wake_at(deadline_from(worker.started_at, options_.max_age));
}

// Ends children that have been idle for long, except those that have to be kept.
void PoolCore::end_idle(std::int64_t now) {
  std::size_t kept = active();
  while (options_.idle_timeout.count() > 0 && !idle_.empty() && kept > options_.min_workers) {
    PoolWorker& oldest = *idle_.front();
    const std::int64_t due = deadline_from(oldest.last_answer_at, options_.idle_timeout);
    if (due > now) return wake_at(due);
    retire(oldest);
    --kept;
  }
}

// ---- the timer ----

void PoolCore::wake_at(std::int64_t at) noexcept {
  if (at >= clock_at_ || stage_ == Stage::over || !loop_->alive()) return;
  clock_at_ = at;
  try {
    clock_.add_in(std::chrono::nanoseconds(std::max<std::int64_t>(at - now_ns(), 0)));
  } catch (const std::bad_alloc&) {
    clock_at_ = no_deadline;
    pump_again();
  }
}

void PoolCore::on_clock() {
  const auto keep = shared_from_this();
  clock_at_ = no_deadline;
  const std::int64_t now = now_ns();
  try {
    do_what_is_due(now);
  } catch (const std::bad_alloc&) {
    wake_at(now + std::chrono::nanoseconds(std::chrono::milliseconds(1)).count());
  }
}

void PoolCore::do_what_is_due(std::int64_t now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now)
    give_up_waiting(deadlines_.begin()->second,
                    Error(Errc::deadline, "deadline: no child was free for the call in time"));
  if (!deadlines_.empty()) wake_at(deadlines_.begin()->first);
  if (stop_at_ <= now) return end_stopping();
  if (stop_at_ != no_deadline) wake_at(stop_at_);
  end_idle(now);
  for (std::size_t i = 0; i < workers_.size() && options_.max_age.count() > 0; ++i) {
    PoolWorker& worker = *workers_[i];
    const std::int64_t due = deadline_from(worker.started_at, options_.max_age);
    if (due > now) {
      wake_at(due);
      break;
    }
    // A child that is not needed is not replaced.
    if (worker.free() && worker.stage == PoolWorker::Stage::ready && !worker.standby &&
        queue_.empty() && maps_.empty() && active() > options_.min_workers)
      retire(worker);
    else
      check_worn(worker, now);
  }
  pump();
}

}  // namespace evparallel::detail
