// calls.cpp - the row of calls.
// Licence: see COPYING.
#include "calls.hpp"

#include <algorithm>

namespace evparallel {

namespace detail {

namespace {

// From here on a row that is mostly answered is cleared of what is not.
constexpr std::size_t long_row = 1024;

}  // namespace

void Calls::add(std::uint64_t id, PendingCall pending) {
  if (row_.empty()) first_id_ = id;
  while (first_id_ + row_.size() < id) row_.emplace_back();  // ids that another child was asked
  row_.push_back(std::move(pending));
  ++count_;
  if (row_.size() >= long_row && row_.size() / 4 > count_ - (any_late() ? late_->size() : 0))
    move_late_calls();
}

PendingCall* Calls::find(std::uint64_t id) noexcept {
  if (any_late()) {
    const auto late = late_->find(id);
    if (late != late_->end()) return &late->second;
  }
  if (id < first_id_ || id - first_id_ >= row_.size()) return nullptr;
  PendingCall& pending = row_[static_cast<std::size_t>(id - first_id_)];
  return pending.answer ? &pending : nullptr;
}

PendingCall Calls::take(std::uint64_t id) {
  PendingCall found;
  if (PendingCall* pending = find(id)) {
    found = std::move(*pending);
    --count_;
    if (any_late()) late_->erase(id);
  }
  while (!row_.empty() && !row_.front().answer) {
    row_.pop_front();
    ++first_id_;
  }
  return found;
}

std::vector<std::pair<std::uint64_t, PendingCall>> Calls::take_all() {
  std::vector<std::pair<std::uint64_t, PendingCall>> all;
  all.reserve(count_);
  if (any_late())
    for (auto& item : *late_) all.emplace_back(item.first, std::move(item.second));
  for (std::size_t i = 0; i < row_.size(); ++i)
    if (row_[i].answer) all.emplace_back(first_id_ + i, std::move(row_[i]));
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  late_.reset();
  row_.clear();
  count_ = 0;
  return all;
}

void Calls::move_late_calls() {
  for (std::size_t i = 0; i < row_.size(); ++i)
    if (row_[i].answer) late_->emplace(first_id_ + i, std::move(row_[i]));
  first_id_ += row_.size();
  row_.clear();
}

}  // namespace detail

}  // namespace evparallel
