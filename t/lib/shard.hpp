// shard.hpp - a program that runs several times in parallel, under other names, and does a part of its work each time.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>

namespace testing {

// NAME-2of4.t is the second of four parts of NAME.t, and any other name is the whole program.
struct Shard {
  std::size_t number = 1;
  std::size_t count = 1;
  bool has(std::size_t index) const noexcept { return index % count == number - 1; }
};

inline Shard own_shard() {
  Shard shard;
  const char* const part = std::strrchr(program_invocation_short_name, '-');
  if (part && std::sscanf(part, "-%zuof%zu.t", &shard.number, &shard.count) != 2) return {};
  return shard;
}

}  // namespace testing
