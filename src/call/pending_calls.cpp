// pending_calls.cpp - the ring buffer of calls.
// Runs in: parent.  Licence: see COPYING.
#include "call/pending_calls.hpp"

#include <algorithm>
#include <new>

namespace evparallel::detail {

namespace {

// From this length on, the unanswered calls are moved out of a ring buffer that is mostly answered.
constexpr std::size_t long_row = 1024;
// Arguments of at least this size are kept in their own memory and not copied.
constexpr std::size_t long_argument = 1024;

}  // namespace

PendingCall& PendingCalls::add(std::uint64_t id, PendingCall&& pending, const Writer* argument) {
  Waiting& all = *waiting_;
  if (all.row.size() >= long_row &&
      all.row.size() / 4 > all.count - (all.any_late() ? all.late->size() : 0))
    all.move_late_calls();
  if (all.row.empty()) all.first_id = id;
  while (all.first_id + all.row.size() < id)
    all.row.emplace_back();  // these ids belong to another child
  Waiting::Entry& entry = all.row.emplace_back();
  try {
    if (argument) all.reserve_argument(entry, *argument);
  } catch (...) {
    all.row.pop_back();
    throw;
  }
  entry.call = std::move(pending);
  ++all.count;
  return entry.call;
}

void PendingCalls::Waiting::reserve_argument(Entry& entry, const Writer& argument) {
  if (argument.adopted_owner() || argument.attached() || argument.size() >= long_argument) {
    entry.apart = std::make_unique<Writer>();
    return;
  }
  bytes.append(argument.written());
  entry.size = argument.size();
}

void PendingCalls::keep_argument(Writer& argument) noexcept {
  Waiting::Entry& last = waiting_->row.back();
  if (last.apart) *last.apart = std::move(argument);
}

PendingCall* PendingCalls::find(std::uint64_t id) noexcept {
  Waiting* const all = waiting_.peek();
  if (!all) return nullptr;
  if (all->any_late()) {
    const auto late = all->late->find(id);
    if (late != all->late->end()) return &late->second.call;
  }
  if (id < all->first_id || id - all->first_id >= all->row.size()) return nullptr;
  PendingCall& pending = all->row[static_cast<std::size_t>(id - all->first_id)].call;
  return pending.answer ? &pending : nullptr;
}

PendingCall PendingCalls::take(std::uint64_t id) {
  PendingCall found;
  PendingCall* const pending = find(id);
  if (!pending) return found;
  Waiting& all = *waiting_;
  found = std::move(*pending);
  --all.count;
  if (all.any_late()) all.late->erase(id);
  while (!all.row.empty() && !all.row.front().call.answer) all.pop_front();
  if (all.count == 0) {
    all.late.reset();
    waiting_.give_back();
  }
  return found;
}

void PendingCalls::Waiting::pop_front() noexcept {
  Entry& first = row.front();
  bytes.drop_front(first.size);
  first.size = 0;
  if (first.apart) first.apart.reset();
  row.drop_front();
  ++first_id;
}

KeptCall PendingCalls::Waiting::kept(std::uint64_t id, Entry& entry, std::size_t at) noexcept {
  KeptCall whole{id, std::move(entry.call)};
  if (entry.apart) whole.argument = std::move(*entry.apart);
  try {
    for (std::size_t left = entry.size; left > 0;) {
      const std::string_view piece = bytes.from(at).substr(0, left);
      whole.argument.write(piece);
      at += piece.size();
      left -= piece.size();
    }
  } catch (const std::bad_alloc&) {
    whole.argument_lost = true;
  }
  return whole;
}

std::vector<KeptCall> PendingCalls::take_all() {
  std::vector<KeptCall> taken;
  Waiting* const all = waiting_.peek();
  if (!all) return taken;
  taken.reserve(all->count);
  if (all->any_late())
    for (auto& item : *all->late) taken.push_back(std::move(item.second));
  std::size_t at = 0;
  for (std::size_t i = 0; i < all->row.size(); ++i) {
    Waiting::Entry& entry = all->row[i];
    if (entry.call.answer) taken.push_back(all->kept(all->first_id + i, entry, at));
    at += entry.size;
  }
  std::sort(taken.begin(), taken.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  give_back();
  return taken;
}

KeptCall PendingCalls::take_any() noexcept {
  Waiting& all = *waiting_;
  while (!all.row.empty() && !all.row.front().call.answer) all.pop_front();
  const std::uint64_t id = all.row.empty() ? all.late->begin()->first : all.first_id;
  return {id, take(id)};
}

void PendingCalls::give_back() noexcept {
  waiting_->late.reset();
  waiting_->clear();
  waiting_->count = 0;
  waiting_.give_back();
}

// An improvement that needs no memory of its own must not fail for lack of it: what was not moved
// stays.
void PendingCalls::Waiting::move_late_calls() {
  std::size_t at = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const std::uint64_t id = first_id + i;
    if (row[i].call.answer) {
      KeptCall* to = nullptr;
      try {
        to = &(*late)[id];
      } catch (const std::bad_alloc&) {
        return;
      }
      *to = kept(id, row[i], at);
    }
    at += row[i].size;
  }
  first_id += row.size();
  clear();
}

void PendingCalls::Waiting::clear() noexcept {
  row.clear();
  bytes.clear();
}

}  // namespace evparallel::detail
