// parallel_map.hpp - the values of a function for all items of a range, without a loop in sight.
// Licence: see COPYING.  Manual: evparallel_pool(3).
//
// For tools and tests: auto sums = values(map(files, sum_of)).  The names are objects, so that
// argument-dependent look-up does not find them beside a map() of the program itself.
#pragma once

#include <evparallel/pool.hpp>

#include <utility>
#include <vector>

namespace evparallel {

namespace detail {

// Takes the default snapshot if there is none and nothing is in its way.
// Fails: std::logic_error in a child, and inside a callback of a Reactor; as init().
EVPARALLEL_API void prepare_blocking_map(const PoolOptions&);

template <class IncIo, class OutIo>
struct ParallelMap {
  template <class R, class F>
  [[nodiscard]] auto operator()(R&& range, F f, const PoolOptions& options = {},
                                MapOptions map_options = {}) const {
    prepare_blocking_map(options);
    Reactor reactor;
    auto workers = pool<IncIo, OutIo>(reactor, std::move(f), options);
    return workers.wait_map(std::forward<R>(range), std::move(map_options));
  }
};

struct Values {
  template <class T>
  std::vector<T> operator()(std::vector<Result<T>> results) const {
    std::vector<T> all;
    all.reserve(results.size());
    for (Result<T>& result : results) all.push_back(std::move(result).value());
    return all;
  }
  void operator()(const std::vector<Result<void>>& results) const {
    for (const Result<void>& result : results) result.value();
  }
};

}  // namespace detail

// map(range, f, PoolOptions = {}, MapOptions = {}): calls f for each item in a pool that exists for
// this call, and returns the results in the order of the items.  If the program has taken no
// snapshot, the default snapshot is taken now: children see the program as it is at this moment.
// Fails: std::logic_error in a child, and inside a callback of a Reactor; as init() and
// Pool::wait_map().
inline constexpr detail::ParallelMap<DefaultIo, DefaultIo> map{};

// The same with codecs: of the results, then of the items.
template <class IncIo = DefaultIo, class OutIo = DefaultIo, class R, class F>
[[nodiscard]] auto map_with(R&& range, F f, const PoolOptions& options = {},
                            MapOptions map_options = {}) {
  return detail::ParallelMap<IncIo, OutIo>{}(std::forward<R>(range), std::move(f), options,
                                             std::move(map_options));
}
template <template <class> class IncIo, template <class> class OutIo = Io, class R, class F>
[[nodiscard]] auto map_with(R&& range, F f, const PoolOptions& options = {},
                            MapOptions map_options = {}) {
  return map_with<detail::TemplateIo<IncIo>, detail::TemplateIo<OutIo>>(
      std::forward<R>(range), std::move(f), options, std::move(map_options));
}

// values(results): the values of all results.  Fails: the first Error among them.
inline constexpr detail::Values values{};

}  // namespace evparallel
