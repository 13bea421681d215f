// joined_replicas.cpp - one snapshot for several Reactors.
// Runs in: parent.  Licence: see COPYING.
#include "system/process_lock.hpp"
#include "spawn/replicas.hpp"

#include <algorithm>

namespace evparallel::detail {

namespace {

// Of one loop: its objects of snapshots that another loop used first.
struct JoinedSnapshots {
  std::vector<std::shared_ptr<Replicas>> all;
};

}  // namespace

// ---- who uses it ----

// Its Reactor is the first one, and once that has ended, the next one.
bool Replicas::claim(const std::shared_ptr<Loop>& loop) {
  const ProcessLock lock;
  const std::shared_ptr<Loop> user = open_->user.lock();
  if (user && !user->is_closed()) return user == loop;
  open_->user = loop;
  return true;
}

std::shared_ptr<Loop> Replicas::user() const {
  const ProcessLock lock;
  const std::shared_ptr<Loop> user = open_->user.lock();
  return user && !user->is_closed() ? user : nullptr;
}

void Replicas::check_thread() const {
  if (joined_) return;
  if (const std::shared_ptr<Loop> loop = user()) loop->check_thread();
}

// Its processes belong to the thread of the loop.
Replicas::~Replicas() {
  if (joined_) return;
  {
    const ProcessLock lock;
    open_->all.clear();
  }
  if (const std::shared_ptr<Loop> loop = user())
    loop->call_in_its_thread([places = std::move(places_), replaced = std::move(replaced_)] {});
}

std::shared_ptr<Replicas> Replicas::for_loop(const std::shared_ptr<Loop>& loop) {
  if (claim(loop)) return shared_from_this();
  std::vector<std::shared_ptr<Replicas>>& all = loop->extension<JoinedSnapshots>().all;
  const auto is_over = [this](const auto& one) { return one->open_ != open_ && one->is_over(); };
  all.erase(std::remove_if(all.begin(), all.end(), is_over), all.end());
  const auto found =
      std::find_if(all.begin(), all.end(), [this](const auto& one) { return one->open_ == open_; });
  if (found != all.end()) return *found;
  all.push_back(join(loop));
  return all.back();
}

// ---- what the others know of it ----

void Replicas::publish() {
  if (joined_) return;
  std::vector<std::shared_ptr<Rendezvous>> all;
  for (std::size_t i = 0; i < active(); ++i) {
    const std::shared_ptr<SnapshotProcess>& process = places_[i].process;
    if (process->alive()) all.push_back(process->rendezvous());
  }
  // Never empty: the calls of another Reactor report why there is none.
  if (all.empty()) all.push_back(places_.front().process->rendezvous());
  std::vector<OpenProcesses::Joined> joined;
  {
    const ProcessLock lock;
    open_->all.swap(all);
    open_->stopped = stopped_;
    ++open_->version;
    if (stopped_) joined.swap(open_->joined);
  }
  // Spares of a Reactor that makes nothing more would keep the processes alive.
  for (const OpenProcesses::Joined& one : joined)
    if (const std::shared_ptr<Loop> loop = one.loop.lock())
      loop->call_in_its_thread([weak = one.replicas] {
        if (const auto replicas = weak.lock()) replicas->refresh();
      });
}

// ---- a joined one ----

// Its children get other seeds than those of the other Reactors.
std::shared_ptr<Replicas> Replicas::join(const std::shared_ptr<Loop>& loop) {
  const std::shared_ptr<Replicas> joined(new Replicas(shared_->cloned(nullptr)));
  {
    const ProcessLock lock;
    open_->joined.erase(std::remove_if(open_->joined.begin(), open_->joined.end(),
                                       [](const auto& one) { return one.replicas.expired(); }),
                        open_->joined.end());
    open_->joined.push_back({joined, loop});
  }
  joined->open_ = open_;
  joined->joined_ = true;
  joined->spares_ = spares_;
  joined->refresh();
  return joined;
}

bool Replicas::has_changed() const {
  const ProcessLock lock;
  return open_->version != seen_;
}

bool Replicas::is_over() const {
  const ProcessLock lock;
  return open_->stopped;
}

// Takes over which processes there are.
void Replicas::refresh() {
  std::vector<std::shared_ptr<Rendezvous>> all;
  {
    const ProcessLock lock;
    all = open_->all;
    seen_ = open_->version;
    stopped_ = open_->stopped;
  }
  const auto has = [](const Place& place, const std::shared_ptr<Rendezvous>& one) {
    return place.process->rendezvous() == one;
  };
  std::vector<Place> places;
  for (const std::shared_ptr<Rendezvous>& one : all) {
    const auto known = std::find_if(places_.begin(), places_.end(),
                                    [&](const Place& place) { return has(place, one); });
    if (known != places_.end())
      places.push_back(*known);
    else
      places.push_back({SnapshotProcess::joined_to(one, shared_, spares_), nullptr});
  }
  if (!places.empty()) places_ = std::move(places);  // empty: the snapshot is gone
  for (const Place& place : places_)
    if (stopped_) place.process->stop();
}

std::shared_ptr<SnapshotProcess> SnapshotProcess::joined_to(std::shared_ptr<Rendezvous> rendezvous,
                                                            std::shared_ptr<SnapshotShared> shared,
                                                            unsigned spares) {
  std::shared_ptr<SnapshotProcess> entry(
      new SnapshotProcess(std::move(shared), std::move(rendezvous)));
  entry->joined_ = true;
  if (spares > 0) entry->spares_.emplace(spares);
  return entry;
}

}  // namespace evparallel::detail
