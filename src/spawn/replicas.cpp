// replicas.cpp - which process of a snapshot gets a request, and the sums over all of them.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/replicas.hpp"

namespace evparallel::detail {

const std::shared_ptr<SnapshotProcess>& Replicas::next(const std::shared_ptr<Loop>& loop) {
  for (const auto& one : all_) one->bind(loop);
  for (std::size_t i = 0; all_.size() > 1 && i < all_.size(); ++i) {
    const std::shared_ptr<SnapshotProcess>& one = all_[turn_++ % all_.size()];
    if (one->can_be_asked()) return one;
  }
  return all_.front();
}

bool Replicas::alive() const noexcept {
  for (const auto& one : all_)
    if (one->alive()) return true;
  return false;
}

std::vector<pid_t> Replicas::pids() const {
  std::vector<pid_t> pids;
  for (const auto& one : all_) pids.push_back(one->pid());
  return pids;
}

std::uint64_t Replicas::orphans() const noexcept {
  std::uint64_t count = 0;
  for (const auto& one : all_) count += one->orphans();
  return count;
}

void Replicas::stop() noexcept {
  for (const auto& one : all_) one->stop();
}

void Replicas::on_lost(Callback<void(const ExitStatus&)> callback) {
  if (!callback) {
    for (const auto& one : all_) one->set_on_lost(nullptr);
    return;
  }
  const auto shared = std::make_shared<CallbackSlot<void(const ExitStatus&)>>();
  shared->set(std::move(callback));
  for (const auto& one : all_)
    one->set_on_lost([shared](const ExitStatus& status) { (*shared)(status); });
}

Error Replicas::another_process_has_it() const {
  return Error(Errc::no_snapshot,
               "no snapshot: process " + std::to_string(shared_->home.pid) +
                   " took it, and this is process " + std::to_string(OwnerProcess::here().pid) +
                   "; a program that daemonises or forks must take its snapshot afterwards");
}

}  // namespace evparallel::detail
