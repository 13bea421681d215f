// mapping.hpp - what a map or a stream of numbers delivers.
#pragma once

#include "testing.hpp"

#include <evparallel/map.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <vector>

namespace testing {

// 0, 1, 2, ...
inline std::vector<int> numbers(int count) {
  std::vector<int> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// The number of results of each item, and whether they are in order.
struct Received {
  Received() = default;
  // No item has a higher index than `count` - 1.
  explicit Received(std::size_t count) : times(count), is_sized(true) {}

  template <class Result, class IsRight>
  void operator()(std::size_t index, const Result& result, IsRight is_right) {
    if (index >= times.size() && !is_sized) times.resize(index + 1);
    ++times.at(index);
    in_order = in_order && index == next;
    next = index + 1;
    if (!result)
      failed.push_back(index);
    else
      right += is_right(*result);
    BOOST_TEST(!summary.has_value());
  }
  // A result of a function that gives x ^ 21 for the number x.
  void operator()(std::size_t index, const evparallel::Result<int>& result) {
    (*this)(index, result, [index](int x) { return x == (static_cast<int>(index) ^ 21); });
  }
  void operator()(const evparallel::MapSummary& s) {
    BOOST_TEST(!summary.has_value());
    summary = s;
  }
  bool each_once() const {
    return std::all_of(times.begin(), times.end(), [](int n) { return n == 1; });
  }
  bool each_once(std::size_t count) const { return times.size() == count && each_once(); }

  std::vector<int> times{};
  bool is_sized = false;
  std::size_t right = 0;
  std::vector<std::size_t> failed{};
  bool in_order = true;
  std::size_t next = 0;
  std::optional<evparallel::MapSummary> summary{};
};

inline auto into(Received& received) {
  return [&received](std::size_t i, const evparallel::Result<int>& r) { received(i, r); };
}
inline auto summary_of(Received& received) {
  return [&received](const evparallel::MapSummary& s) { received(s); };
}

}  // namespace testing
