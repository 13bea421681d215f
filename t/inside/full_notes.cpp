// full_notes.cpp - pools where the table of notes is full, from inside: nobody can tell a child of a
// deadline or a cancel then, and the callers hear all the same.
#include "replicas.hpp"

#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

namespace {

struct Shared {
  std::atomic<bool> open{false};
  std::atomic<int> begun[64]{};
};
Shared* shared = nullptr;

}  // namespace

void testing_main_init() {
  void* place =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  shared = new (place) Shared;
  par::init();
  testing::expect_child(par::default_snapshot().pid());
}

namespace {

// Until there is no place left, wherever a note might go.
class FullTable {
public:
  FullTable() : table_(par::Replicas::choose(nullptr)->notes()) {
    const std::uint64_t owner = par::Notes::new_owner();
    std::uint64_t call = 0;
    for (int refused = 0; refused < 1000000; ++refused)
      if (par::Note* note = table_.write(owner, call++, par::no_deadline)) {
        all_.push_back(note);
        refused = 0;
      }
  }
  ~FullTable() {
    for (par::Note* note : all_) table_.erase(note);
  }
  std::size_t size() const { return all_.size(); }

private:
  par::Notes& table_;
  std::vector<par::Note*> all_;
};

int wait_for_gate(int x) {
  ++shared->begun[x];
  while (!shared->open) ::usleep(100);
  return x;
}

struct Heard {
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

BOOST_AUTO_TEST_CASE(calls_with_deadlines_are_answered) {
  const FullTable full;
  BOOST_TEST(full.size() > 200000u);
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](int x) { return x + 1; }, of(2));
  int right = 0;
  for (int i = 0; i < 1000; ++i)
    pool.submit(i, [&right, i](par::Result<int> r) { right += r.value() == i + 1; }).deadline(1h);
  loop.run();
  BOOST_TEST(right == 1000);
}

BOOST_AUTO_TEST_CASE(a_deadline_of_a_call_that_runs) {
  const FullTable full;
  par::Reactor loop;
  auto pool = par::pool(loop, wait_for_gate, of(1));
  Heard heard;
  pool.submit(0, heard.note(0)).deadline(20ms);
  loop.run();
  BOOST_TEST(heard.all[0] == "deadline");
  // The child was ended for it, or is past it: another one answers.
  shared->open = true;
  pool.submit(1, heard.note(1));
  loop.run();
  BOOST_TEST(heard.all[1] == "right");
}

BOOST_AUTO_TEST_CASE(cancel_of_calls_that_run_and_that_wait) {
  const FullTable full;
  par::Reactor loop;
  auto pool = par::pool(loop, wait_for_gate, of(1));
  Heard heard;
  std::vector<par::Call> calls;
  for (int i = 0; i < 4; ++i) calls.push_back(pool.submit(i, heard.note(i)));
  par::Timer wait = loop.every(1ms, [&] {
    if (shared->begun[0] == 0) return;
    for (int i = 0; i < 3; ++i) calls[static_cast<std::size_t>(i)].cancel();
    shared->open = true;
    wait.cancel();
  });
  loop.run();
  for (int i = 0; i < 3; ++i) BOOST_TEST(heard.all[i] == "cancelled");
  BOOST_TEST(heard.all[3] == "right");
}

// What was sent ahead can't be taken back without a note: it stays where it is.
BOOST_AUTO_TEST_CASE(what_waits_behind_a_slow_call_is_answered_once) {
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
  Heard heard;
  for (int i = 0; i < 60; ++i)
    pool.submit(0, heard.note(60));  // short ones: so that many are sent ahead
  loop.run();
  for (int i = 1; i < 60; ++i) pool.submit(i, heard.note(i));
  loop.run();
  for (int i = 1; i < 60; ++i) {
    BOOST_TEST(heard.all[i] == "right");
    BOOST_TEST(shared->begun[i] == 1);
  }
}

BOOST_AUTO_TEST_CASE(a_map_that_is_cancelled) {
  const FullTable full;
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](int x) { return x; }, of(2));
  std::size_t results = 0;
  std::size_t ends = 0;
  par::MapHandle map;
  std::vector<int> items(100000, 1);
  map = pool.map(
      items,
      [&](std::size_t, par::Result<int>) {
        if (++results == 100) map.cancel();
      },
      [&](const par::Summary& summary) { ends += summary.stopped; });
  loop.run();
  BOOST_TEST(results == 100u);
  BOOST_TEST(ends == 1u);
  BOOST_TEST(pool.pending() == 0u);
}
