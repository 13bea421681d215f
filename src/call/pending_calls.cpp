// pending_calls.cpp - the ring buffer of calls.
// Runs in: parent.  Licence: see COPYING.
#include "call/pending_calls.hpp"

#include <algorithm>

namespace evparallel::detail {

namespace {

// From this length on, the unanswered calls are moved out of a ring buffer that is mostly answered.
constexpr std::size_t long_row = 1024;
// Arguments of at least this size are kept in their own memory and not copied.
constexpr std::size_t long_argument = 1024;

}  // namespace

PendingCall& PendingCalls::add(std::uint64_t id, PendingCall&& pending, Writer* argument) {
  Waiting& all = *waiting_;
  if (all.row.empty()) all.first_id = id;
  while (all.first_id + all.row.size() < id)
    all.row.emplace_back();  // these ids belong to another child
  Waiting::Entry& entry = all.row.emplace_back();
  entry.call = std::move(pending);
  if (argument) all.keep_argument(entry, *argument);
  ++all.count;
  if (all.row.size() < long_row ||
      all.row.size() / 4 <= all.count - (all.any_late() ? all.late->size() : 0))
    return entry.call;
  all.move_late_calls();
  return all.late->find(id)->second.call;
}

void PendingCalls::Waiting::keep_argument(Entry& entry, Writer& argument) {
  if (argument.adopted_owner() || argument.attached() || argument.size() >= long_argument) {
    entry.apart = std::make_unique<Writer>(std::move(argument));
    return;
  }
  entry.size = argument.size();
  bytes.append(argument.written());
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

KeptCall PendingCalls::Waiting::kept(std::uint64_t id, Entry& entry, std::size_t at) {
  KeptCall whole{id, std::move(entry.call)};
  if (entry.apart) whole.argument = std::move(*entry.apart);
  for (std::size_t left = entry.size; left > 0;) {
    const std::string_view piece = bytes.from(at).substr(0, left);
    whole.argument.write(piece);
    at += piece.size();
    left -= piece.size();
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
  all->late.reset();
  all->clear();
  all->count = 0;
  waiting_.give_back();
  return taken;
}

void PendingCalls::Waiting::move_late_calls() {
  std::size_t at = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const std::uint64_t id = first_id + i;
    if (row[i].call.answer) late->emplace(id, kept(id, row[i], at));
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
