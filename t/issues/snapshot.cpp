// snapshot.cpp - a snapshot whose stack began at the end of a page wrote a byte beyond what it had put there.  With
// chance that was so in one program of 256, and in that one for most of its snapshots.  AddressSanitizer sees it:
// --enable-audit.
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <alloca.h>

#include <cstddef>
#include <vector>

namespace par = evparallel;

void testing_main_init() {}

namespace {

// Frames are laid out in steps of 16 bytes.
constexpr std::size_t page = 4096;
constexpr std::size_t step = 16;

[[gnu::noinline]] pid_t take_deeper_by(std::size_t size) {
  auto* const rest = static_cast<volatile char*>(::alloca(size + step));
  *rest = 0;
  const par::Snapshot snapshot;
  BOOST_TEST(snapshot.alive());
  return snapshot.pid();
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_snapshot_begins_wherever_the_stack_is) {
  std::vector<pid_t> taken;
  for (std::size_t size = 0; size < page; size += step) taken.push_back(take_deeper_by(size));
  for (const pid_t pid : taken) BOOST_TEST(testing::gone(pid));
  const par::Snapshot next;  // closes the sockets of those that have ended
}
