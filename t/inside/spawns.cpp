// spawns.cpp - the table of children that were asked for, and what is lent from a shelf.
#include "testing.hpp"

#include "shelf.hpp"
#include "spares.hpp"
#include "spawns.hpp"

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

using namespace evparallel;

void testing_main_init() {}

// ---- spawns ----

BOOST_AUTO_TEST_CASE(a_spawn_is_found_until_it_is_erased) {
  Spawns spawns;
  BOOST_TEST(spawns.find(1) == nullptr);
  spawns.erase(1);
  Living& added = spawns.add(1);
  BOOST_TEST(added.id == 1u);
  BOOST_TEST(added.slot == no_slot);
  BOOST_TEST(!added.asked);
  added.pid = 4711;
  BOOST_REQUIRE(spawns.find(1) != nullptr);
  BOOST_TEST(spawns.find(1)->pid == 4711);
  BOOST_TEST(spawns.find(0) == nullptr);
  BOOST_TEST(spawns.find(2) == nullptr);
  spawns.erase(1);
  BOOST_TEST(spawns.find(1) == nullptr);
  spawns.erase(1);
  BOOST_TEST(spawns.ids().empty());
}

// The ids of spares are above all others, and both rise at the same time.
BOOST_AUTO_TEST_CASE(spawns_end_in_any_order) {
  std::mt19937 random(41);
  Spawns spawns;
  std::set<std::uint64_t> expected;
  std::uint64_t next = 1;
  std::uint64_t next_spare = Spares::first_id;
  const auto one_of_them = [&] {
    auto found = expected.begin();
    std::advance(found, random() % expected.size());
    return *found;
  };
  for (int i = 0; i < 20000; ++i) {
    if (expected.empty() || (random() % 10 < 6 && i < 12000)) {
      const bool spare = random() % 4 == 0;
      const std::uint64_t id = spare ? next_spare++ : next++;
      next += random() % 3 == 0;  // a replica's
      spawns.add(id).pid = static_cast<pid_t>(id & 0xffff);
      expected.insert(id);
    } else {
      const std::uint64_t id = one_of_them();
      spawns.erase(id);
      expected.erase(id);
      BOOST_REQUIRE(!spawns.find(id));
    }
    if (expected.empty()) continue;
    const std::uint64_t id = one_of_them();
    BOOST_REQUIRE(spawns.find(id));
    BOOST_REQUIRE(spawns.find(id)->id == id);
    BOOST_REQUIRE(spawns.find(id)->pid == static_cast<pid_t>(id & 0xffff));
  }
  const std::vector<std::uint64_t> ids = spawns.ids();
  BOOST_TEST(std::equal(ids.begin(), ids.end(), expected.begin(), expected.end()));
}

BOOST_AUTO_TEST_CASE(a_spare_that_a_spawn_has_taken_is_none) {
  Spawns spawns;
  BOOST_TEST(spawns.only_spares());
  spawns.add(Spares::first_id).spare = true;
  BOOST_TEST(spawns.only_spares());
  spawns.add(1);
  BOOST_TEST(!spawns.only_spares());
  spawns.erase(1);
  BOOST_TEST(spawns.only_spares());
  spawns.find(Spares::first_id)->spare = false;
  BOOST_TEST(!spawns.only_spares());
}

BOOST_AUTO_TEST_CASE(listeners_are_forgotten_all_at_once) {
  Spawns spawns;
  int somebody = 0;
  auto* const listener = reinterpret_cast<SpawnListener*>(&somebody);
  for (const std::uint64_t id : {std::uint64_t{1}, std::uint64_t{2}, Spares::first_id})
    spawns.add(id).listener = listener;
  BOOST_TEST(spawns.find(2)->listener == listener);
  spawns.forget_listeners();
  for (const std::uint64_t id : spawns.ids()) BOOST_TEST(!spawns.find(id)->listener);
  BOOST_TEST(spawns.ids().size() == 3u);
}

// ---- a shelf ----

BOOST_AUTO_TEST_CASE(what_was_given_back_is_lent_again) {
  Shelf<std::vector<int>> shelf;
  Lent<std::vector<int>> one(shelf);
  Lent<std::vector<int>> other(shelf);
  BOOST_TEST(one.peek() == nullptr);
  one->reserve(100);
  const std::vector<int>* const place = one.peek();
  BOOST_TEST(&*one == place);
  one.give_back();
  BOOST_TEST(one.peek() == nullptr);
  BOOST_TEST(&*other == place);
  BOOST_TEST(other->capacity() >= 100u);
  BOOST_TEST(&*one != place);  // while the other has it
  other.give_back();
  other.give_back();
  BOOST_TEST(&*other == place);
}

// So that the most that were ever used at the same time are not kept for ever.
BOOST_AUTO_TEST_CASE(a_shelf_keeps_a_few) {
  int living = 0;
  struct Counted {
    int* count = nullptr;
    ~Counted() {
      if (count) --*count;
    }
  };
  {
    Shelf<Counted> shelf;
    std::vector<Lent<Counted>> many;
    for (int i = 0; i < 100; ++i) {
      many.emplace_back(shelf);
      many.back()->count = &living;
      ++living;
    }
    Lent<Counted> moved = std::move(many.back());
    many.pop_back();
    for (Lent<Counted>& one : many) one.give_back();
    BOOST_TEST(living >= 2);
    BOOST_TEST(living <= 20);
    BOOST_TEST(moved.peek() != nullptr);
  }
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(one_without_a_shelf_keeps_its_own) {
  Lent<std::vector<int>> own;
  BOOST_TEST(own.peek() == nullptr);
  own->push_back(1);
  own.give_back();
  BOOST_REQUIRE(own.peek() != nullptr);
  BOOST_TEST(own->size() == 1u);
  Lent<std::vector<int>> given(std::make_unique<std::vector<int>>(3));
  BOOST_TEST(given->size() == 3u);
}
