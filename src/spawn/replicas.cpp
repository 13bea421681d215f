// replicas.cpp - which process of a snapshot gets a request, and how a lost one is replaced.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/replicas.hpp"

#include "base/clock.hpp"
#include "system/process_lock.hpp"

#include <algorithm>
#include <new>

namespace evparallel::detail {

namespace {

// After a fork that has failed: the same reason mostly holds for a while.
constexpr std::chrono::seconds retry_after{1};

// In a program that sets no callback for them.
constexpr std::size_t most_unreported = 16;

}  // namespace

// ---- requests ----

const std::shared_ptr<SnapshotProcess>& Replicas::next(const std::shared_ptr<Loop>& loop) {
  if (joined_ && has_changed()) refresh();
  for (const Place& place : places_) {
    place.process->bind(loop);
    if (place.successor) place.successor->bind(loop);
  }
  for (const auto& one : replaced_) one->bind(loop);
  for (std::size_t i = 0; places_.size() > 1 && i < active(); ++i) {
    Place& place = places_[turn_++ % active()];
    if (place.process->can_be_asked() || use_standby(place)) return place.process;
  }
  // None serves.  Requests wait in the socket of a process that is on its way, behind the one for
  // its successor.
  for (Place& place : places_)
    if (places_.size() > 1 && !stopped_ && !place.successor && !place.process->can_be_asked())
      fill(place);
  for (const Place& place : places_)
    if (place.successor && place.successor->can_be_asked()) return place.successor;
  return places_.front().process;
}

// Puts the standby into this place, whose process is dead, perhaps not reported to be.
bool Replicas::use_standby(Place& place) {
  Place& standby = places_.back();
  if (!standby_ || &standby == &place) return false;
  if (!standby.process->serves() || !standby.process->can_be_asked()) return false;
  std::swap(place, standby);
  publish();
  if (!standby.successor) fill(standby);  // before it is asked for a child, which may kill it
  if (spares_ > 0) place.process->keep_spares_if_possible(spares_);
  return true;
}

pid_t Replicas::pid() const {
  check_thread();
  return places_.front().process->pid();
}

bool Replicas::alive() const {
  check_thread();
  return std::any_of(places_.begin(), places_.end(), [](const Place& place) {
    return place.process->alive() || (place.successor && place.successor->alive());
  });
}

std::vector<pid_t> Replicas::pids() const {
  check_thread();
  std::vector<pid_t> pids;
  for (const Place& place : places_) pids.push_back(place.process->pid());
  return pids;
}

std::uint64_t Replicas::orphans() const {
  check_thread();
  std::uint64_t count = orphans_before_;
  for (const Place& place : places_) count += place.process->orphans();
  return count;
}

void Replicas::stop() noexcept {
  const std::shared_ptr<Loop> loop = user();
  if (!loop || loop->in_its_thread()) return stop_here();
  loop->call_in_its_thread([self = shared_from_this()] { self->stop_here(); });
}

void Replicas::stop_here() noexcept {
  stopped_ = true;
  on_lost_ = nullptr;
  replaced_.clear();
  for (const Place& place : places_) {
    place.process->stop();
    if (place.successor) place.successor->stop();
  }
  try {
    publish();
  } catch (const std::bad_alloc&) {  // other Reactors need to know that it is stopped, and no more
    const ProcessLock lock;
    open_->stopped = true;
    ++open_->version;
  }
}

// ---- the loss of a process ----

void Replicas::on_lost(Callback<void(const ExitStatus&)> callback) {
  check_thread();
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
  const bool is_standby = standby_ && places_.back().process.get() == &process;
  if (spares_ > 0 && !is_standby) process.keep_spares_if_possible(spares_);
  publish();
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

void Replicas::on_loss(SnapshotProcess& process) {
  if (stopped_) return;
  for (Place& place : places_)
    if (place.successor.get() == &process) {
      place.successor = nullptr;
      if (process.has_failed_to_start()) return place.process->look_again_in(retry_after);
    }
  publish();
  fill_places();
}

void Replicas::fill_places() {
  for (Place& place : places_)
    if (place.process->is_lost()) use_standby(place);
  for (Place& place : places_)
    if (place.process->is_lost() && !place.successor) fill(place);
}

void Replicas::fill(Place& place) {
  SnapshotProcess* const from = one_to_fork_from();
  const std::shared_ptr<Loop>& loop = place.process->loop();
  if (!from || !from->can_fork_beside() || !loop || !loop->alive()) return;
  const std::int64_t now = now_ns();
  if (const std::int64_t wait = fork_limit_.wait_time(now, living() > 1))
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

std::size_t Replicas::living() const noexcept {
  return static_cast<std::size_t>(
      std::count_if(places_.begin(), places_.end(),
                    [](const Place& place) { return place.process->can_be_asked(); }));
}

// One that serves; or else one that is on its way, and keeps the request in its socket.
SnapshotProcess* Replicas::one_to_fork_from() const noexcept {
  SnapshotProcess* found = nullptr;
  for (const Place& place : places_)
    for (SnapshotProcess* const one : {place.process.get(), place.successor.get()})
      if (one && (!found || !found->serves()) && one->can_be_asked()) found = one;
  return found;
}

// ---- clones ----

void Replicas::refuse_clone() const {
  check_thread();
  if (!is_at_home()) throw another_process_has_it();
  if (stopped_) throw places_.front().process->why_gone();
}

std::shared_ptr<Replicas> Replicas::clone(const std::string* name) {
  refuse_clone();
  SnapshotProcess* const from = one_to_fork_from();
  if (!from) throw places_.front().process->why_gone();
  if (!from->can_fork_beside())
    throw Error(Errc::refused,
                "refused: a snapshot in another pid namespace cannot be cloned: take another "
                "Snapshot before the Reactor is created");
  std::shared_ptr<Replicas> copy(new Replicas(shared_->cloned(name)));
  copy->standby_ = standby_;
  copy->spares_ = spares_;
  for (std::size_t i = 0; i < places_.size(); ++i)
    copy->add(SnapshotProcess::fork_beside(*from, copy->shared_, name));
  copy->publish();
  return copy;
}

Error Replicas::another_process_has_it() const {
  return Error(Errc::no_snapshot,
               "no snapshot: process " + std::to_string(shared_->home.pid) +
                   " took it, and this is process " + std::to_string(OwnerProcess::here().pid) +
                   "; a program that daemonises or forks must take its snapshot afterwards");
}

}  // namespace evparallel::detail
