// freezing.cpp - snapshots that cannot be frozen, or that die while they freeze, and the errors that the program gets.
#include "elsewhere.hpp"
#include "errors.hpp"
#include "failpoint_actions.hpp"
#include "private_names.hpp"
#include "process.hpp"
#include "testing.hpp"

#include "spawn/snapshot_process.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace par = evparallel;
using failpoints::Action;
using failpoints::Failpoint;
using testing::elsewhere;
using testing::error_of;
using testing::has;

namespace {

constexpr std::size_t size = std::size_t{100} << 20;

// The action of the snapshot at its k-th piece.
void load_at_piece(std::uint64_t k, Action action, Failpoint failpoint, int error = 0) {
  failpoints::Fault fault;
  fault.action = action;
  fault.failpoint = failpoint;
  fault.victim = failpoints::Victim::snapshot;
  fault.hit = k;
  fault.error = error;
  failpoints::load(fault);
}

void arm_at_fork_of_a_replica(unsigned failures, std::uint64_t death) {
  par::fault::Plan plan;
  plan.victim = par::fault::Victim::snapshot;
  plan.fork_failures = failures;
  plan.fork_errno = EAGAIN;
  plan.die_at_fork = death;
  par::fault::arm(plan);
}

// The error that the constructor throws after the fault that `arm` prepares; the snapshot leaves nothing behind.
template <class Arm>
std::optional<par::Error> error_with(Arm arm) {
  arm();
  par::SnapshotOptions options;
  options.freeze = true;
  options.replicas = 3;
  const auto error = error_of([&] { const par::Snapshot snapshot(options); });
  par::fault::disarm();
  const bool nobody_left = testing::eventually([] {
    par::SnapshotProcess::reap_abandoned();
    return testing::children_of(::getpid()).empty();
  });
  if (!nobody_left) return std::nullopt;
  return error;
}

// The same in a program with a large block; the program continues with a snapshot that is not frozen.
template <class Arm>
int received(Arm arm, const char* text, int os_error) {
  return elsewhere([&] {
    static char* block;
    block = static_cast<char*>(std::malloc(size));
    std::memset(block, 'a', size);
    const std::size_t descriptors = testing::count_descriptors();
    const auto error = error_with(arm);
    if (!error || error->code() != par::Errc::spawn_failed) return 1;
    std::printf("# %s\n", error->what());
    if (!has(error->what(), text) || error->os_error() != os_error) return 2;
    if (!has(error->what(), "or set SnapshotOptions::freeze to false")) return 5;
    if (testing::count_descriptors() != descriptors) return 3;
    par::Snapshot snapshot;
    par::Reactor loop;
    par::Options options;
    options.snapshot = &snapshot;
    auto f = par::run(
        loop, [](int i) { return static_cast<int>(block[i]); }, options);
    int answer = 0;
    f(12345678, [&](par::Result<int> r) { answer = r.value(); });
    loop.run();
    return answer == 'a' ? 0 : 4;
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_lack_of_room_for_a_copy_is_reported) {
  if (testing::skipped_unfrozen()) return;
  BOOST_TEST(received([] { load_at_piece(1, Action::fail, Failpoint::freeze_copy, ENOSPC); },
                      "no memory for a copy", ENOSPC) == 0);
  BOOST_TEST(received([] { load_at_piece(2, Action::fail, Failpoint::freeze_copy, ENOSPC); },
                      "could not be frozen", ENOSPC) == 0);
}

BOOST_AUTO_TEST_CASE(a_copy_that_cannot_be_mapped_is_reported) {
  if (testing::skipped_unfrozen()) return;
  BOOST_TEST(received([] { load_at_piece(2, Action::fail, Failpoint::freeze_map, ENOMEM); },
                      "could not be mapped", ENOMEM) == 0);
}

BOOST_AUTO_TEST_CASE(a_snapshot_that_dies_while_it_freezes_is_reported) {
  if (testing::skipped_unfrozen()) return;
  BOOST_TEST(
      received([] { load_at_piece(2, Action::kill, Failpoint::freeze_copy); }, "SIGKILL", 0) == 0);
}

// Replicas that were forked before the failure end, too.
BOOST_AUTO_TEST_CASE(a_replica_that_cannot_be_forked_is_reported) {
  if (testing::skipped_unfrozen()) return;
  BOOST_TEST(received([] { arm_at_fork_of_a_replica(1, 0); }, "a replica could not be forked",
                      EAGAIN) == 0);
  BOOST_TEST(received([] { arm_at_fork_of_a_replica(0, 1); }, "SIGKILL", 0) == 0);
  BOOST_TEST(received([] { arm_at_fork_of_a_replica(0, 2); }, "SIGKILL", 0) == 0);
}

// The program is killed while it waits: its half-frozen snapshot ends before the next piece.
BOOST_AUTO_TEST_CASE(a_snapshot_does_not_outlive_its_program_while_it_freezes) {
  if (testing::skipped_unfrozen()) return;
  int ends[2];
  BOOST_REQUIRE(::pipe(ends) == 0);
  const int status = elsewhere([&] {
    // Volatile: otherwise a compiler may drop the block, since nothing reads it.
    static char* volatile block;
    block = static_cast<char*>(std::malloc(2 * size));
    std::memset(block, 'a', 2 * size);
    load_at_piece(2, Action::kill_parent, Failpoint::freeze_copy);
    par::SnapshotOptions options;
    options.freeze = true;
    const par::Snapshot snapshot(options);
    return 0;
  });
  ::close(ends[1]);
  char byte;
  // Every process of the program holds the other end.
  BOOST_TEST(::read(ends[0], &byte, 1) == 0);
  ::close(ends[0]);
  BOOST_TEST(status == 100 + SIGKILL);
}
