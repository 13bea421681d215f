// child_table.cpp - the table of children.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/child_table.hpp"

#include <algorithm>
#include <utility>

namespace evparallel::detail {

void ChildTable::set_up() noexcept {
  free_ = ChildList{};
  std::fill_n(buckets_, bucket_count, no_child);
}

void ChildTable::push(ChildList& list, ChildIndex index) noexcept {
  entries_[index].next = no_child;
  if (list.empty())
    list.first = index;
  else
    entries_[list.last].next = index;
  list.last = index;
}

ChildIndex ChildTable::pop(ChildList& list) noexcept {
  const ChildIndex index = list.first;
  if (index != no_child) list.first = entries_[index].next;
  return index;
}

ChildIndex ChildTable::take_free() noexcept {
  const ChildIndex index = pop(free_);
  if (index != no_child) return index;
  return fresh_ < slot_count ? fresh_++ : no_child;
}

void ChildTable::free(ChildIndex index) noexcept {
  if (std::exchange(entries_[index].of_child, false)) --slots_of_children_;
  entries_[index].stage = Stage::free;
  push(free_, index);
}

void ChildTable::add(ChildIndex index, pid_t pid, std::uint32_t client, std::uint64_t id,
                     ChildIndex owner) noexcept {
  ChildEntry& child = entries_[index];
  child = ChildEntry{};
  child.stage = Stage::living;
  child.client = client;
  child.pid = pid;
  child.id = id;
  child.terminate_at = never;
  child.kill_at = never;
  child.overdue_at = never;
  child.next_in_bucket = bucket_of(pid);
  bucket_of(pid) = index;
  ++living_;
  if (owner == no_child) return;
  child.of_child = true;
  ++slots_of_children_;
  ++entries_[owner].slots;
}

bool ChildTable::any_of(std::uint32_t client) const noexcept {
  return std::any_of(entries_, entries_ + fresh_, [client](const ChildEntry& child) {
    return child.stage == Stage::living && child.client == client;
  });
}

void ChildTable::mark_ended(ChildIndex gone) noexcept {
  ChildIndex* link = &bucket_of(entries_[gone].pid);
  while (*link != gone) link = &entries_[*link].next_in_bucket;
  *link = entries_[gone].next_in_bucket;
  entries_[gone].stage = Stage::ended;
  --living_;
}

ChildIndex ChildTable::find_pid(pid_t pid) noexcept {
  ChildIndex index = bucket_of(pid);
  while (index != no_child && entries_[index].pid != pid) index = entries_[index].next_in_bucket;
  return index;
}

}  // namespace evparallel::detail
