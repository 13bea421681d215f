// random_seed.cpp - makes seeds.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/random_seed.hpp"

#include "base/startup_path.hpp"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

namespace evparallel::detail {

namespace {

std::uint64_t seed_of_this = 0;
std::uint64_t seed_of_generators = 0;  // 0: they may be as the program has left them

// SplitMix64: similar inputs give unrelated outputs.
std::uint64_t mixed(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

}  // namespace

std::uint64_t fresh_seed() noexcept {
  std::uint64_t seed = 0;
  if (::getrandom(&seed, sizeof seed, GRND_NONBLOCK) == static_cast<ssize_t>(sizeof seed))
    return seed;
  timespec now{};  // the kernel has no random numbers soon after the machine's start
  ::clock_gettime(CLOCK_REALTIME, &now);
  return mixed(static_cast<std::uint64_t>(now.tv_sec) * 1000000000U +
               static_cast<std::uint64_t>(now.tv_nsec)) ^
         static_cast<std::uint64_t>(::getpid());
}

std::uint64_t seed_of_child(std::uint64_t seed, std::uint64_t index) noexcept {
  return mixed(seed + index * 0x9e3779b97f4a7c15U);
}

EVPARALLEL_EARLY void seed_generators(std::uint64_t seed) noexcept {
  if (seed != 0 && seed == seed_of_generators) return;
  seed_of_generators = seed;
  ::srandom(static_cast<unsigned>(seed));  // also seeds rand()
  ::srand48(static_cast<long>(seed >> 32));
}

EVPARALLEL_EARLY void take_seed(std::uint64_t seed) noexcept {
  seed_of_this = seed;
  seed_generators(seed);
}

std::uint64_t taken_seed() noexcept {
  return seed_of_this;
}

}  // namespace evparallel::detail
