// replicas.cpp - which process of a snapshot gets a request, and how a lost one is replaced.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/replicas.hpp"

#include "base/clock.hpp"

#include <algorithm>

namespace evparallel::detail {

namespace {

// After a fork that has failed: the same reason mostly holds for a while.
constexpr std::chrono::seconds retry_after{1};

// In a program that sets no callback for them.
constexpr std::size_t most_unreported = 16;

}  // namespace

// ---- requests ----

const std::shared_ptr<SnapshotProcess>& Replicas::next(const std::shared_ptr<Loop>& loop) {
  for (const Place& place : places_) {
    place.process->bind(loop);
    if (place.successor) place.successor->bind(loop);
  }
  for (const auto& one : replaced_) one->bind(loop);
  for (std::size_t i = 0; places_.size() > 1 && i < places_.size(); ++i) {
    const std::shared_ptr<SnapshotProcess>& one = places_[turn_++ % places_.size()].process;
    if (one->can_be_asked()) return one;
  }
  // Requests wait in the socket of a process that does not serve yet.
  for (const Place& place : places_)
    if (place.successor && place.successor->can_be_asked()) return place.successor;
  return places_.front().process;
}

bool Replicas::alive() const noexcept {
  return std::any_of(places_.begin(), places_.end(), [](const Place& place) {
    return place.process->alive() || (place.successor && place.successor->alive());
  });
}

std::vector<pid_t> Replicas::pids() const {
  std::vector<pid_t> pids;
  for (const Place& place : places_) pids.push_back(place.process->pid());
  return pids;
}

std::uint64_t Replicas::orphans() const noexcept {
  std::uint64_t count = orphans_before_;
  for (const Place& place : places_) count += place.process->orphans();
  return count;
}

void Replicas::stop() noexcept {
  stopped_ = true;
  on_lost_ = nullptr;
  replaced_.clear();
  for (const Place& place : places_) {
    place.process->stop();
    if (place.successor) place.successor->stop();
  }
}

// ---- the loss of a process ----

void Replicas::on_lost(Callback<void(const ExitStatus&)> callback) {
  on_lost_ = nullptr;
  if (callback && !stopped_) {
    on_lost_ = std::make_shared<CallbackSlot<void(const ExitStatus&)>>();
    on_lost_->set(std::move(callback));
  }
  for (const Place& place : places_) {
    inform(*place.process);
    if (place.successor) inform(*place.successor);
  }
  for (const auto& one : replaced_) inform(*one);
}

void Replicas::inform(SnapshotProcess& process) {
  if (on_lost_)
    process.set_on_lost([shared = on_lost_](const ExitStatus& status) { (*shared)(status); });
  else
    process.set_on_lost(nullptr);
}

void Replicas::add(std::shared_ptr<SnapshotProcess> process) {
  process->observe(weak_from_this());
  places_.push_back({std::move(process), nullptr});
}

void Replicas::on_serving(SnapshotProcess& process) {
  if (stopped_) return;
  for (Place& place : places_)
    if (place.successor.get() == &process) replace(place);
  if (spares_ > 0) process.keep_spares_if_possible(spares_);
  fill_places();
}

void Replicas::replace(Place& place) {
  replaced_.erase(std::remove_if(replaced_.begin(), replaced_.end(),
                                 [](const auto& one) { return !one->has_unreported_loss(); }),
                  replaced_.end());
  if (place.process->has_unreported_loss()) replaced_.push_back(place.process);
  if (replaced_.size() > most_unreported) replaced_.erase(replaced_.begin());
  orphans_before_ += place.process->orphans();
  place.process = std::move(place.successor);
}

void Replicas::on_over(SnapshotProcess& process) {
  if (stopped_) return;
  for (Place& place : places_)
    if (place.successor.get() == &process) {
      place.successor = nullptr;
      return place.process->look_again_in(retry_after);
    }
  fill_places();
}

void Replicas::fill_places() {
  for (Place& place : places_)
    if (place.process->over() && !place.successor) fill(place);
}

// If none lives now, the next one that serves comes here again.
void Replicas::fill(Place& place) {
  SnapshotProcess* const from = living();
  const std::shared_ptr<Loop>& loop = place.process->loop();
  if (!from || !from->can_fork_beside() || !loop || !loop->alive()) return;
  const std::int64_t now = now_ns();
  if (const std::int64_t wait = fork_limit_.wait_time(now))
    return place.process->look_again_in(std::chrono::nanoseconds(wait));
  fork_limit_.count(now);
  try {
    place.successor = SnapshotProcess::fork_beside(*from, shared_, nullptr);
  } catch (const Error&) {
    return place.process->look_again_in(retry_after);
  }
  place.successor->observe(weak_from_this());
  inform(*place.successor);
  place.successor->bind(loop);
}

SnapshotProcess* Replicas::living() const noexcept {
  for (const Place& place : places_)
    if (place.process->serves() && place.process->can_be_asked()) return place.process.get();
  return nullptr;
}

Error Replicas::another_process_has_it() const {
  return Error(Errc::no_snapshot,
               "no snapshot: process " + std::to_string(shared_->home.pid) +
                   " took it, and this is process " + std::to_string(OwnerProcess::here().pid) +
                   "; a program that daemonises or forks must take its snapshot afterwards");
}

}  // namespace evparallel::detail
