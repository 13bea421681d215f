// spawn_table.cpp - the vectors of the table.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/spawn_table.hpp"

#include "spawn/spare_children.hpp"

#include <algorithm>

namespace evparallel::detail {

namespace {

constexpr std::size_t few = 16;

}  // namespace

SpawnTable::Records& SpawnTable::records_of(std::uint64_t id) noexcept {
  return id < Spares::first_id ? spawned_ : spares_;
}

SpawnRecord& SpawnTable::add(std::uint64_t id) {
  SpawnRecord& added = records_of(id).all.emplace_back();
  added.id = id;
  return added;
}

SpawnRecord* SpawnTable::find(std::uint64_t id) noexcept {
  std::vector<SpawnRecord>& all = records_of(id).all;
  const auto found = std::lower_bound(
      all.begin(), all.end(), id,
      [](const SpawnRecord& one, std::uint64_t wanted) { return one.id < wanted; });
  return found == all.end() || found->id != id || found->ended ? nullptr : &*found;
}

// The other records are moved only when half of them have ended.
void SpawnTable::erase(std::uint64_t id) noexcept {
  SpawnRecord* const found = find(id);
  if (!found) return;
  Records& records = records_of(id);
  found->ended = true;
  ++records.ended;
  while (!records.all.empty() && records.all.back().ended) {
    records.all.pop_back();
    --records.ended;
  }
  if (2 * records.ended > records.all.size()) records.close_up();
}

void SpawnTable::Records::close_up() noexcept {
  all.erase(
      std::remove_if(all.begin(), all.end(), [](const SpawnRecord& one) { return one.ended; }),
      all.end());
  ended = 0;
  if (all.capacity() > few && all.capacity() / 4 > all.size()) all.shrink_to_fit();
}

std::vector<std::uint64_t> SpawnTable::ids() const {
  std::vector<std::uint64_t> ids;
  for (const Records* records : {&spawned_, &spares_})
    for (const SpawnRecord& one : records->all)
      if (!one.ended) ids.push_back(one.id);
  return ids;
}

bool SpawnTable::only_spares() const noexcept {
  return std::all_of(spawned_.all.begin(), spawned_.all.end(),
                     [](const SpawnRecord& one) { return one.ended; }) &&
         std::all_of(spares_.all.begin(), spares_.all.end(),
                     [](const SpawnRecord& one) { return one.ended || one.spare; });
}

void SpawnTable::forget_listeners() noexcept {
  for (Records* records : {&spawned_, &spares_})
    for (SpawnRecord& one : records->all) one.listener = nullptr;
}

}  // namespace evparallel::detail
