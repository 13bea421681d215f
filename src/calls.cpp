// calls.cpp - the row of calls.
// Licence: see COPYING.
#include "calls.hpp"

#include <algorithm>

namespace evparallel {

namespace detail {

namespace {

// From here on a row that is mostly answered is cleared of what is not.
constexpr std::size_t long_row = 1024;
// Arguments from here on are kept where they are, rather than copied.
constexpr std::size_t long_argument = 1024;

}  // namespace

// ---- lent ----

PendingCall& Calls::add(std::uint64_t id, PendingCall&& call, Writer* argument) {
  return pending_->add(id, std::move(call), argument);
}

PendingCall* Calls::find(std::uint64_t id) noexcept {
  return pending_.peek() ? pending_->find(id) : nullptr;
}

PendingCall Calls::take(std::uint64_t id) {
  if (!pending_.peek()) return {};
  PendingCall found = pending_->take(id);
  if (pending_->count() == 0) pending_.give_back();
  return found;
}

std::vector<KeptCall> Calls::take_all() {
  if (!pending_.peek()) return {};
  std::vector<KeptCall> all = pending_->take_all();
  pending_.give_back();
  return all;
}

// ---- calls that wait ----

PendingCall& Calls::Pending::add(std::uint64_t id, PendingCall&& pending, Writer* argument) {
  if (row_.empty()) first_id_ = id;
  while (first_id_ + row_.size() < id) row_.emplace_back();  // ids that another child was asked
  Place& place = row_.emplace_back();
  place.call = std::move(pending);
  if (argument) keep_argument(place, *argument);
  ++count_;
  if (row_.size() < long_row || row_.size() / 4 <= count_ - (any_late() ? late_->size() : 0))
    return place.call;
  move_late_calls();
  return late_->find(id)->second.call;
}

void Calls::Pending::keep_argument(Place& place, Writer& argument) {
  if (argument.adopted_owner() || argument.attached() || argument.size() >= long_argument) {
    place.apart = std::make_unique<Writer>(std::move(argument));
    return;
  }
  place.size = argument.size();
  bytes_.append(argument.bytes());
}

PendingCall* Calls::Pending::find(std::uint64_t id) noexcept {
  if (any_late()) {
    const auto late = late_->find(id);
    if (late != late_->end()) return &late->second.call;
  }
  if (id < first_id_ || id - first_id_ >= row_.size()) return nullptr;
  PendingCall& pending = row_[static_cast<std::size_t>(id - first_id_)].call;
  return pending.answer ? &pending : nullptr;
}

PendingCall Calls::Pending::take(std::uint64_t id) {
  PendingCall found;
  if (PendingCall* pending = find(id)) {
    found = std::move(*pending);
    --count_;
    if (any_late()) late_->erase(id);
  }
  while (!row_.empty() && !row_.front().call.answer) pop_front();
  return found;
}

void Calls::Pending::pop_front() noexcept {
  Place& first = row_.front();
  bytes_.drop_front(first.size);
  first.size = 0;
  if (first.apart) first.apart.reset();
  row_.drop_front();
  ++first_id_;
}

KeptCall Calls::Pending::kept(std::uint64_t id, Place& place, std::size_t at) {
  KeptCall whole{id, std::move(place.call)};
  if (place.apart) whole.argument = std::move(*place.apart);
  for (std::size_t left = place.size; left > 0;) {
    const std::string_view bytes = bytes_.from(at).substr(0, left);
    whole.argument.write(bytes);
    at += bytes.size();
    left -= bytes.size();
  }
  return whole;
}

std::vector<KeptCall> Calls::Pending::take_all() {
  std::vector<KeptCall> all;
  all.reserve(count_);
  if (any_late())
    for (auto& item : *late_) all.push_back(std::move(item.second));
  std::size_t at = 0;
  for (std::size_t i = 0; i < row_.size(); ++i) {
    if (row_[i].call.answer) all.push_back(kept(first_id_ + i, row_[i], at));
    at += row_[i].size;
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  late_.reset();
  clear();
  count_ = 0;
  return all;
}

void Calls::Pending::move_late_calls() {
  std::size_t at = 0;
  for (std::size_t i = 0; i < row_.size(); ++i) {
    const std::uint64_t id = first_id_ + i;
    if (row_[i].call.answer) late_->emplace(id, kept(id, row_[i], at));
    at += row_[i].size;
  }
  first_id_ += row_.size();
  clear();
}

void Calls::Pending::clear() noexcept {
  row_.clear();
  bytes_.clear();
}

}  // namespace detail

}  // namespace evparallel
