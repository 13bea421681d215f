// notes.cpp - what parent and child tell each other in shared memory: notes, and who begins what.
#include "testing.hpp"

#include "notes.hpp"
#include "slots.hpp"

#include "elsewhere.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <set>
#include <thread>

using namespace evparallel;

namespace {

struct Unmap {
  void operator()(Notes* notes) const { ::munmap(notes, sizeof(Notes)); }
};
using NotesPointer = std::unique_ptr<Notes, Unmap>;

NotesPointer fresh_notes() {
  Notes* notes = Notes::map();
  if (!notes) throw std::bad_alloc();
  return NotesPointer(notes);
}

}  // namespace

// ---- notes ----

BOOST_AUTO_TEST_CASE(a_note_is_found_until_it_is_erased) {
  const NotesPointer notes = fresh_notes();
  BOOST_TEST(notes->deadline_of(5, 1) == no_deadline);
  Note* one = notes->write(5 << 10, 1, 100);
  Note* two = notes->write(5 << 10, 2, 200);
  BOOST_REQUIRE(one);
  BOOST_REQUIRE(two);
  BOOST_TEST(notes->deadline_of(5 << 10, 1) == 100);
  BOOST_TEST(notes->deadline_of(5 << 10, 2) == 200);
  BOOST_TEST(notes->deadline_of(5 << 10, 3) == no_deadline);
  BOOST_TEST(notes->deadline_of(6 << 10, 1) == no_deadline);
  one->deadline = revoked;
  BOOST_TEST(notes->deadline_of(5 << 10, 1) == revoked);
  notes->erase(one);
  BOOST_TEST(notes->deadline_of(5 << 10, 1) == no_deadline);
  BOOST_TEST(notes->deadline_of(5 << 10, 2) == 200);
  notes->erase(two);
  BOOST_TEST(notes->deadline_of(5 << 10, 2) == no_deadline);
}

BOOST_AUTO_TEST_CASE(a_hundred_thousand_notes) {
  const NotesPointer notes = fresh_notes();
  std::vector<Note*> all;
  const std::uint64_t owner = Notes::new_owner();
  for (std::uint64_t i = 0; i < 100000; ++i)
    all.push_back(notes->write(owner, i, static_cast<std::int64_t>(i) + 1));
  std::size_t found = 0;
  for (std::uint64_t i = 0; i < 100000; ++i)
    found += all[i] && notes->deadline_of(owner, i) == static_cast<std::int64_t>(i) + 1;
  // Some may find no room: a probe of eight places at two fifths of all.
  BOOST_TEST(found > 99900u);
  for (Note* note : all)
    if (note) notes->erase(note);
  for (std::uint64_t i = 0; i < 100000; ++i)
    BOOST_REQUIRE(notes->deadline_of(owner, i) == no_deadline);
}

BOOST_AUTO_TEST_CASE(a_full_table_takes_no_note_and_goes_on) {
  const NotesPointer notes = fresh_notes();
  const std::uint64_t owner = Notes::new_owner();
  std::vector<Note*> all;
  std::size_t refused = 0;
  for (std::uint64_t i = 0; i < 600000; ++i) {
    Note* note = notes->write(owner, i, 1);
    refused += note == nullptr;
    if (note) all.push_back(note);
  }
  BOOST_TEST(refused > 0u);
  BOOST_TEST(all.size() > 200000u);
  const std::set<Note*> different(all.begin(), all.end());
  BOOST_TEST(different.size() == all.size());
  for (Note* note : all) notes->erase(note);
  BOOST_TEST((notes->write(owner, 1, 5) != nullptr));
  BOOST_TEST(notes->deadline_of(owner, 1) == 5);
}

BOOST_AUTO_TEST_CASE(owners_are_never_the_same) {
  std::set<std::uint64_t> owners;
  for (int i = 0; i < 1000; ++i) owners.insert(Notes::new_owner());
  BOOST_TEST(owners.size() == 1000u);
  const std::uint64_t last = *owners.rbegin();
  BOOST_TEST(testing::elsewhere([&] {
               const std::uint64_t mine = Notes::new_owner();
               return owners.count(mine) == 0 && mine >> 42 != last >> 42 ? 0 : 1;
             }) == 0);
}

BOOST_AUTO_TEST_CASE(several_processes_write_at_once) {
  const NotesPointer notes = fresh_notes();
  std::vector<pid_t> pids;
  for (int k = 0; k < 4; ++k) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const std::uint64_t owner = Notes::new_owner();
      for (std::uint64_t i = 0; i < 50000; ++i) {
        Note* note = notes->write(owner, i % 50, 7);
        if (note && notes->deadline_of(owner, i % 50) != 7) ::_exit(1);
        if (note) notes->erase(note);
        if (notes->deadline_of(owner, i % 50) != no_deadline) ::_exit(2);
      }
      ::_exit(0);
    }
    pids.push_back(pid);
  }
  for (const pid_t pid : pids) {
    int status = -1;
    ::waitpid(pid, &status, 0);
    BOOST_TEST(status == 0);
  }
  BOOST_TEST(notes->deadline_of(1 << 20, 1) == no_deadline);
}

BOOST_AUTO_TEST_CASE(times_beyond_all_time) {
  using std::chrono::milliseconds;
  using std::chrono::nanoseconds;
  const std::int64_t now = now_ns();
  BOOST_TEST(deadline_in(nanoseconds::max()) == no_deadline);
  BOOST_TEST(deadline_in(milliseconds::max()) == no_deadline);
  BOOST_TEST(deadline_in(nanoseconds::min()) > revoked);
  BOOST_TEST(deadline_in(nanoseconds::min()) <= now);
  BOOST_TEST(deadline_in(milliseconds(10)) >= now + 10000000);
  const std::int64_t past = deadline_in(nanoseconds(-5));
  BOOST_TEST(past <= now_ns());
}

// ---- who begins what ----

BOOST_AUTO_TEST_CASE(a_child_begins_unless_it_is_condemned) {
  Slot slot;
  BOOST_TEST(slot.begin(5));
  BOOST_TEST(CallWord::of(slot.call).id == 5u);
  BOOST_TEST(CallWord::of(slot.call).running);
  slot.finish(5);
  BOOST_TEST(!CallWord::of(slot.call).running);
  BOOST_TEST(!slot.condemn_in_call(5));  // it is not at it any more
  BOOST_TEST((slot.sentence == Sentence::none));
  BOOST_TEST(slot.begin(6));
  BOOST_TEST(!slot.condemn_in_call(5));
  BOOST_TEST(slot.condemn_in_call(6));
  BOOST_TEST(slot.condemn_in_call(6));  // twice is once
  BOOST_TEST(!slot.begin(7));
  BOOST_TEST(CallWord::of(slot.call).id == 6u);
  BOOST_TEST((slot.sentence == Sentence::obeyed));
  BOOST_TEST(!slot.begin(7));
  BOOST_TEST(!slot.condemn_in_call(6));  // it ends by itself
  BOOST_TEST((slot.sentence == Sentence::obeyed));
  slot.clear();
  BOOST_TEST(slot.begin(1));
}

// Whatever the order is in which the two go about it: a call that is condemned was begun, and one
// that was begun after it is not hit.
BOOST_AUTO_TEST_CASE(a_race_for_the_next_call) {
  for (int round = 0; round < 2000; ++round) {
    Slot slot;
    slot.begin(1);
    bool hit = false;
    std::thread snapshot([&] { hit = slot.condemn_in_call(1); });
    slot.finish(1);
    const bool begun = slot.begin(2);
    snapshot.join();
    BOOST_TEST(!(hit && begun));
    BOOST_TEST((begun == (slot.sentence == Sentence::none)));
  }
}
