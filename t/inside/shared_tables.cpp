// shared_tables.cpp - the tables in shared memory: the cancel table with its deadlines, and the slots of children.  And
// pools whose cancel table is full: no deadline or cancel reaches a child then, and the callers still get their errors.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "private_names.hpp"
#include "process.hpp"
#include "testing.hpp"

#include "shared/cancel_table.hpp"
#include "spawn/replicas.hpp"
#include "shared/child_slots.hpp"

#include <evparallel/evparallel.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace par = evparallel;
using namespace evparallel;
using namespace std::chrono_literals;

namespace {

struct Shared {
  std::atomic<bool> open{false};
  std::atomic<int> begun[64]{};
};
Shared* shared = nullptr;

}  // namespace

void testing_main_init() {
  shared = &testing::shared<Shared>();
  testing::take_default_snapshot();
}

namespace {

struct Unmap {
  void operator()(CancelTable* table) const { ::munmap(table, sizeof(CancelTable)); }
};
using TablePointer = std::unique_ptr<CancelTable, Unmap>;

TablePointer fresh_table() {
  CancelTable* table = CancelTable::map();
  if (!table) throw std::bad_alloc();
  return TablePointer(table);
}

}  // namespace

// ---- the cancel table ----

BOOST_AUTO_TEST_CASE(an_entry_is_found_until_it_is_erased) {
  const TablePointer table = fresh_table();
  BOOST_TEST(table->deadline_of(5, 1) == no_deadline);
  CancelEntry* one = table->write(5 << 10, 1, 100);
  CancelEntry* two = table->write(5 << 10, 2, 200);
  BOOST_REQUIRE(one);
  BOOST_REQUIRE(two);
  BOOST_TEST(table->deadline_of(5 << 10, 1) == 100);
  BOOST_TEST(table->deadline_of(5 << 10, 2) == 200);
  BOOST_TEST(table->deadline_of(5 << 10, 3) == no_deadline);
  BOOST_TEST(table->deadline_of(6 << 10, 1) == no_deadline);
  one->deadline = revoked;
  BOOST_TEST(table->deadline_of(5 << 10, 1) == revoked);
  table->erase(one);
  BOOST_TEST(table->deadline_of(5 << 10, 1) == no_deadline);
  BOOST_TEST(table->deadline_of(5 << 10, 2) == 200);
  table->erase(two);
  BOOST_TEST(table->deadline_of(5 << 10, 2) == no_deadline);
}

BOOST_AUTO_TEST_CASE(a_hundred_thousand_entries_are_found) {
  const TablePointer table = fresh_table();
  std::vector<CancelEntry*> all;
  const std::uint64_t owner = CancelTable::new_owner();
  for (std::uint64_t i = 0; i < 100000; ++i)
    all.push_back(table->write(owner, i, static_cast<std::int64_t>(i) + 1));
  std::size_t found = 0;
  for (std::size_t i = 0; i < 100000; ++i)
    found += all[i] && table->deadline_of(owner, i) == static_cast<std::int64_t>(i) + 1;
  // Some calls may find no free entry: a probe looks at eight entries, and two fifths of all entries are in use.
  BOOST_TEST(found > 99900u);
  for (CancelEntry* entry : all)
    if (entry) table->erase(entry);
  for (std::uint64_t i = 0; i < 100000; ++i)
    BOOST_REQUIRE(table->deadline_of(owner, i) == no_deadline);
}

BOOST_AUTO_TEST_CASE(a_full_table_refuses_entries_and_still_works) {
  const TablePointer table = fresh_table();
  const std::uint64_t owner = CancelTable::new_owner();
  std::vector<CancelEntry*> all;
  std::size_t refused = 0;
  for (std::uint64_t i = 0; i < 600000; ++i) {
    CancelEntry* entry = table->write(owner, i, 1);
    refused += entry == nullptr;
    if (entry) all.push_back(entry);
  }
  BOOST_TEST(refused > 0u);
  BOOST_TEST(all.size() > 200000u);
  const std::set<CancelEntry*> different(all.begin(), all.end());
  BOOST_TEST(different.size() == all.size());
  for (CancelEntry* entry : all) table->erase(entry);
  BOOST_TEST((table->write(owner, 1, 5) != nullptr));
  BOOST_TEST(table->deadline_of(owner, 1) == 5);
}

BOOST_AUTO_TEST_CASE(a_child_that_begins_a_call_waits_for_the_decision_who_makes_it) {
  const TablePointer table = fresh_table();
  const std::uint64_t owner = CancelTable::new_owner();
  for (const std::int64_t decision : {reassigned, no_deadline, std::int64_t{5}}) {
    CancelEntry* const entry = table->write(owner, 1, undecided);
    BOOST_REQUIRE(entry);
    std::atomic<bool> begins{false};
    std::int64_t seen = 0;
    std::thread child([&] {
      begins = true;
      seen = table->decided_deadline_of(owner, 1);
    });
    BOOST_TEST(testing::eventually([&] { return begins.load(); }));
    testing::burn(10ms);
    entry->deadline = decision;
    child.join();
    BOOST_TEST(seen == decision);
    table->erase(entry);
  }
}

BOOST_AUTO_TEST_CASE(a_child_does_not_wait_for_a_decision_about_an_erased_entry) {
  const TablePointer table = fresh_table();
  const std::uint64_t owner = CancelTable::new_owner();
  CancelEntry* const entry = table->write(owner, 1, undecided);
  std::int64_t seen = 0;
  std::thread child([&] { seen = table->decided_deadline_of(owner, 1); });
  table->erase(entry);
  child.join();
  BOOST_TEST(seen == no_deadline);
}

BOOST_AUTO_TEST_CASE(owner_ids_are_unique) {
  std::set<std::uint64_t> owners;
  for (int i = 0; i < 1000; ++i) owners.insert(CancelTable::new_owner());
  BOOST_TEST(owners.size() == 1000u);
  const std::uint64_t last = *owners.rbegin();
  BOOST_TEST(testing::elsewhere([&] {
               const std::uint64_t mine = CancelTable::new_owner();
               return owners.count(mine) == 0 && mine >> 42 != last >> 42 ? 0 : 1;
             }) == 0);
}

BOOST_AUTO_TEST_CASE(several_processes_write_at_the_same_time) {
  const TablePointer table = fresh_table();
  std::vector<pid_t> pids;
  for (int k = 0; k < 4; ++k) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const std::uint64_t owner = CancelTable::new_owner();
      for (std::uint64_t i = 0; i < 50000; ++i) {
        CancelEntry* entry = table->write(owner, i % 50, 7);
        if (entry && table->deadline_of(owner, i % 50) != 7) ::_exit(1);
        if (entry) table->erase(entry);
        if (table->deadline_of(owner, i % 50) != no_deadline) ::_exit(2);
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
  BOOST_TEST(table->deadline_of(1 << 20, 1) == no_deadline);
}

BOOST_AUTO_TEST_CASE(huge_times_mean_no_deadline) {
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

// ---- the start of a call against a stop request ----

BOOST_AUTO_TEST_CASE(a_child_begins_a_call_unless_it_must_stop) {
  Slot slot;
  BOOST_TEST(slot.begin(5));
  BOOST_TEST(CallState::of(slot.call).id == 5u);
  BOOST_TEST(CallState::of(slot.call).running);
  slot.finish(5);
  BOOST_TEST(!CallState::of(slot.call).running);
  BOOST_TEST(!slot.request_stop_in_call(5));  // it is no longer in call 5
  BOOST_TEST((slot.stop_request == StopRequest::none));
  BOOST_TEST(slot.begin(6));
  BOOST_TEST(!slot.request_stop_in_call(5));
  BOOST_TEST(slot.request_stop_in_call(6));
  BOOST_TEST(slot.request_stop_in_call(6));  // a second request has no further effect
  BOOST_TEST(!slot.begin(7));
  BOOST_TEST(CallState::of(slot.call).id == 6u);
  BOOST_TEST((slot.stop_request == StopRequest::acknowledged));
  BOOST_TEST(!slot.begin(7));
  BOOST_TEST(!slot.request_stop_in_call(6));  // it ends by itself
  BOOST_TEST((slot.stop_request == StopRequest::acknowledged));
  slot.clear();
  BOOST_TEST(slot.begin(1));
}

// In any order of the two: the child has begun a call that was given up, and a call that it begins afterwards is not
// affected.
BOOST_AUTO_TEST_CASE(a_child_that_must_stop_does_not_begin_the_next_call) {
  for (int round = 0; round < 2000; ++round) {
    Slot slot;
    slot.begin(1);
    bool hit = false;
    std::thread snapshot([&] { hit = slot.request_stop_in_call(1); });
    slot.finish(1);
    const bool begun = slot.begin(2);
    snapshot.join();
    BOOST_TEST(!(hit && begun));
    BOOST_TEST((begun == (slot.stop_request == StopRequest::none)));
  }
}

// ---- a full table ----

namespace {

// Fills the table until no call can get an entry, wherever its probe begins.
class FullTable {
public:
  FullTable() : table_(par::default_snapshot().replicas()->cancel_table()) {
    const std::uint64_t owner = par::CancelTable::new_owner();
    std::uint64_t call = 0;
    for (int refused = 0; refused < 1000000; ++refused)
      if (par::CancelEntry* entry = table_.write(owner, call++, par::no_deadline)) {
        all_.push_back(entry);
        refused = 0;
      }
  }
  ~FullTable() {
    for (par::CancelEntry* entry : all_) table_.erase(entry);
  }
  std::size_t size() const { return all_.size(); }

private:
  par::CancelTable& table_;
  std::vector<par::CancelEntry*> all_;
};

int wait_for_gate(int x) {
  ++shared->begun[x];
  while (!shared->open) ::usleep(100);
  return x;
}

struct Received {
  std::map<int, std::string> all;
  auto note(int i) {
    return [this, i](par::Result<int> r) { all[i] += r ? "right" : to_string(r.error().code()); };
  }
};

par::PoolOptions of(unsigned workers) {
  new (shared) Shared;
  par::PoolOptions options;
  options.workers = workers;
  options.child.grace = 50ms;
  return options;
}

}  // namespace

BOOST_AUTO_TEST_CASE(calls_with_deadlines_are_answered_in_a_full_table) {
  const FullTable full;
  BOOST_TEST(full.size() > 200000u);
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](int x) { return x + 1; }, of(2));
  int right = 0;
  for (int i = 0; i < 1000; ++i)
    pool.submit(i, [&right, i](par::Result<int> r) { right += r.value() == i + 1; })
        .set_deadline(1h);
  loop.run();
  BOOST_TEST(right == 1000);
}

BOOST_AUTO_TEST_CASE(a_deadline_ends_a_running_call_in_a_full_table) {
  const FullTable full;
  par::Reactor loop;
  auto pool = par::pool(loop, wait_for_gate, of(1));
  Received received;
  pool.submit(0, received.note(0)).set_deadline(20ms);
  loop.run();
  BOOST_TEST(received.all[0] == "deadline");
  // The child was ended for the first call, or is past it: another child answers.
  shared->open = true;
  pool.submit(1, received.note(1));
  loop.run();
  BOOST_TEST(received.all[1] == "right");
}

BOOST_AUTO_TEST_CASE(running_and_waiting_calls_are_cancelled_in_a_full_table) {
  const FullTable full;
  par::Reactor loop;
  auto pool = par::pool(loop, wait_for_gate, of(1));
  Received received;
  std::vector<par::Call> calls;
  for (int i = 0; i < 4; ++i) calls.push_back(pool.submit(i, received.note(i)));
  par::Timer wait = loop.every(1ms, [&] {
    if (shared->begun[0] == 0) return;
    for (int i = 0; i < 3; ++i) calls[static_cast<std::size_t>(i)].cancel();
    shared->open = true;
    wait.cancel();
  });
  loop.run();
  for (int i = 0; i < 3; ++i) BOOST_TEST(received.all[i] == "cancelled");
  BOOST_TEST(received.all[3] == "right");
}

// A call that was sent ahead cannot be taken back without an entry: it remains where it is.
BOOST_AUTO_TEST_CASE(calls_behind_a_slow_call_are_answered_once) {
  const FullTable full;
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        ++shared->begun[x];
        if (x == 1) ::usleep(20000);
        return x;
      },
      of(2));
  Received received;
  for (int i = 0; i < 60; ++i)
    pool.submit(0, received.note(60));  // short calls, so that many are sent ahead
  loop.run();
  for (int i = 1; i < 60; ++i) pool.submit(i, received.note(i));
  loop.run();
  for (int i = 1; i < 60; ++i) {
    BOOST_TEST(received.all[i] == "right");
    BOOST_TEST(shared->begun[i] == 1);
  }
}

BOOST_AUTO_TEST_CASE(a_map_is_cancelled_in_a_full_table) {
  const FullTable full;
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](int x) { return x; }, of(2));
  std::size_t results = 0;
  std::size_t ends = 0;
  par::MapHandle running;
  std::vector<int> items(100000, 1);
  running = pool.map(
      items,
      [&](std::size_t, par::Result<int>) {
        if (++results == 100) running.cancel();
      },
      [&](const par::MapSummary& summary) { ends += summary.stopped; });
  loop.run();
  BOOST_TEST(results == 100u);
  BOOST_TEST(ends == 1u);
  BOOST_TEST(pool.pending() == 0u);
}
