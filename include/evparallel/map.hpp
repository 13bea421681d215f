// map.hpp - calls a pool's function for each item of a range: options, progress, summary.
// Licence: see COPYING.  Manual: evparallel_pool(3).
#pragma once

#include <evparallel/progress.hpp>
#include <evparallel/call.hpp>

#include <chrono>
#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <vector>

namespace evparallel {

// How a map has ended.
struct MapSummary {
  std::size_t done = 0;
  std::size_t failed = 0;
  // It ended before its range did: it was cancelled, its pool was dropped, or stop_on_error.
  bool stopped = false;
  // Of the first item that failed; or the reason why the pool could not go on.
  std::optional<Error> error{};
  std::chrono::nanoseconds time{0};
};

// An aggregate that is moved in.
struct MapOptions {
  // Items that are sent together; 0: as many as keep a child busy for some milliseconds, as
  // measured.  Fewer if the range waits for input, or a stream has no more of them.
  std::size_t chunk = 0;
  // Results come in the order of the items; otherwise as they are ready.
  bool ordered = true;
  // No result comes after the first error.
  bool stop_on_error = false;
  // An item may be passed to the function again if its child ended while it ran another item.
  // False: when a child ends, all items that were sent together to it fail.
  bool repeatable = true;
  int priority = 0;  // as CallOptions::priority
  // The number of items, if the range does not know it.
  std::optional<std::size_t> total{};
  Callback<void(const Progress&)> on_progress{};
  std::chrono::milliseconds progress_every{100};  // at most in this interval, and once at the end
  ProgressForm show = ProgressForm::quiet;        // draws the progress on standard error
};

namespace detail {

// Pulls the next item of a map: writes it and returns true.
using PullItem = Callback<bool(Writer&, std::optional<Error>& refused)>;
using ItemResult = Callback<void(std::size_t index, Reader*, const Error*)>;

struct MapTask {
  PullItem pull;
  ItemResult on_result;
  Callback<void(const MapSummary&)> on_done;
  bool may_wait = false;  // a pull may wait for input
};

// A map that runs.
class MapInterface {
public:
  virtual void cancel() = 0;
  virtual void pause() = 0;
  virtual void resume() = 0;
  virtual Progress progress() const = 0;

protected:
  ~MapInterface() = default;
};

}  // namespace detail

// Names one running map.  It may be copied, and dropping it does not affect the map.
class MapHandle {
public:
  MapHandle() noexcept = default;
  explicit MapHandle(const std::shared_ptr<detail::MapInterface>& core) noexcept : core_(core) {}

  // From now on no result comes; on_done is called soon, from the loop.  Items that a child runs
  // are given up like calls: see Call::cancel.
  void cancel() const {
    if (const auto core = core_.lock()) core->cancel();
  }
  // Until resume() no result comes, nothing is pulled and nothing is sent; results of items that
  // children have already are kept.  on_done waits, too, unless the map is cancelled.  Inside
  // on_result, no further result follows the current one.
  void pause() const {
    if (const auto core = core_.lock()) core->pause();
  }
  void resume() const {
    if (const auto core = core_.lock()) core->resume();
  }
  // Returns an empty Progress if the map is over.
  Progress progress() const {
    const auto core = core_.lock();
    return core ? core->progress() : Progress{};
  }

private:
  std::weak_ptr<detail::MapInterface> core_;
};

namespace detail {

// The results of a map, in the order of its items.
template <class Inc>
class CollectedResults {
public:
  void add(std::size_t index, Result<Inc>&& result) {
    if (index >= results_.size()) results_.resize(index + 1);
    results_[index].emplace(std::move(result));
  }
  std::vector<Result<Inc>> take() {
    const Error none(Errc::cancelled, "cancelled: the map ended before this item was answered");
    std::vector<Result<Inc>> results;
    results.reserve(results_.size());
    for (std::optional<Result<Inc>>& result : results_)
      results.push_back(result ? std::move(*result) : Result<Inc>(none));
    return results;
  }

private:
  std::vector<std::optional<Result<Inc>>> results_{};
};

// Runs the loop until a map is over; `begin` starts the map with the callbacks that it gets.
template <class Inc, class Begin>
std::vector<Result<Inc>> wait_for_map(LoopRunner& loop, MapOptions& options, Begin begin) {
  struct Waiting {
    bool done = false;
    CollectedResults<Inc> results;
  };
  loop.check_can_run();
  const auto waiting = std::make_shared<Waiting>();
  const MapHandle map =
      begin([waiting](std::size_t index,
                      Result<Inc> result) { waiting->results.add(index, std::move(result)); },
            [waiting](const MapSummary&) { waiting->done = true; }, std::move(options));
  try {
    if (!loop.run_until(waiting->done)) map.cancel();
  } catch (...) {
    map.cancel();
    throw;
  }
  return waiting->results.take();
}

// ---- the source of items ----

template <class G, class = void>
constexpr bool is_generator = false;
template <class G>
constexpr bool is_generator<G, std::void_t<decltype(*std::declval<G&>()()),
                                           decltype(static_cast<bool>(std::declval<G&>()()))>> =
    true;

template <class R, class = void>
constexpr bool has_size = false;
template <class R>
constexpr bool has_size<R, std::void_t<decltype(std::declval<const R&>().size())>> = true;

template <class R, class = void>
constexpr bool has_begin = false;
template <class R>
constexpr bool has_begin<
    R, std::void_t<decltype(std::declval<R&>().begin()), decltype(std::declval<R&>().end())>> =
    true;

// The beginning and the end of a range, found as in a range-based for: of an array, as members, or
// by argument-dependent look-up alone.
template <class R>
auto begin_of(R& range) {
  if constexpr (std::is_array_v<R>)
    return range + 0;
  else if constexpr (has_begin<R>)
    return range.begin();
  else
    return begin(range);
}
template <class R>
auto end_of(R& range) {
  if constexpr (std::is_array_v<R>)
    return range + std::extent_v<R>;
  else if constexpr (has_begin<R>)
    return range.end();
  else
    return end(range);
}

// Whether a walk through the range leaves it unchanged; an iterator that cannot be copied has no
// category.
template <class Iterator, class = void>
constexpr bool is_forward = false;
template <class Iterator>
constexpr bool
    is_forward<Iterator, std::void_t<typename std::iterator_traits<Iterator>::iterator_category>> =
        std::is_base_of_v<std::forward_iterator_tag,
                          typename std::iterator_traits<Iterator>::iterator_category>;

// Whether a pull may wait for input: from a function, or from an input iterator.
template <class R>
constexpr bool pull_may_wait() {
  if constexpr (is_generator<R>)
    return true;
  else
    return !is_forward<decltype(begin_of(std::declval<R&>()))>;
}

template <class R>
std::optional<std::size_t> size_of_range(R& range) {
  using Iterator = decltype(begin_of(range));
  if constexpr (has_size<R>)
    return static_cast<std::size_t>(range.size());
  else if constexpr (is_forward<Iterator> && std::is_same_v<Iterator, decltype(end_of(range))>)
    return static_cast<std::size_t>(std::distance(begin_of(range), end_of(range)));
  else
    return std::nullopt;
}

// Writes one item; an error of its codec is reported, and does not stop the map.
template <class Codecs, class Sent>
void write_item(const Codecs& codecs, Writer& out, Sent&& item, std::optional<Error>& refused) {
  try {
    codecs.put_item(out, std::forward<Sent>(item));
  } catch (const Error& error) {
    refused = error;
  }
}

// Whether f(item) compiles for a function that takes a `Sent`.
template <class Item, class Sent>
constexpr bool converts_to =
    std::is_convertible_v<Item,
                          std::conditional_t<std::is_lvalue_reference_v<Item>, const Sent&, Sent>>;

// Converts the item as a call f(item) does: never by an explicit constructor, and never by a cast.
template <class Sent, class Codecs, class Item>
void convert_item(const Codecs& codecs, Writer& out, Item&& item, std::optional<Error>& refused) {
  static_assert(converts_to<Item&&, Sent>,
                "evparallel: the items of a map must convert implicitly to the argument of the "
                "pool's function; transform the range, or cast each item explicitly in a function "
                "that returns std::optional");
  if constexpr (std::is_lvalue_reference_v<Item>) {
    const Sent& sent = item;
    write_item(codecs, out, sent, refused);
  } else if constexpr (std::is_same_v<Item, Sent>) {
    write_item(codecs, out, std::move(item), refused);
  } else {
    Sent sent = std::forward<Item>(item);
    write_item(codecs, out, std::move(sent), refused);
  }
}

// `R` is a reference if the caller keeps the range.
template <class R, class Sent, class Codecs>
struct RangeSource {
  RangeSource(R&& given, const Codecs& c) : range(std::forward<R>(given)), codecs(c) {}

  bool pull(Writer& out, std::optional<Error>& refused) {
    if (at) {
      ++*at;  // not earlier: that may wait for input
    } else {
      at.emplace(begin_of(range));
      end.emplace(end_of(range));
    }
    if (!(*at != *end)) return false;
    convert_item<Sent>(codecs, out, **at, refused);
    return true;
  }

  R range;
  Codecs codecs;
  std::optional<decltype(begin_of(std::declval<R&>()))> at{};
  std::optional<decltype(end_of(std::declval<R&>()))> end{};
};

template <class R, class Sent, class Codecs>
PullItem pull_from(R&& given, const Codecs& codecs) {
  if constexpr (is_generator<R>) {
    return [generate = std::decay_t<R>(std::forward<R>(given)), codecs](
               Writer& out, std::optional<Error>& refused) mutable {
      auto item = generate();
      if (!item) return false;
      // What a pointer points at stays with its owner.
      convert_item<Sent>(codecs, out, *std::move(item), refused);
      return true;
    };
  } else {
    auto source = std::make_unique<RangeSource<R, Sent, Codecs>>(std::forward<R>(given), codecs);
    return [source = std::move(source)](Writer& out, std::optional<Error>& refused) {
      return source->pull(out, refused);
    };
  }
}

// ---- the destination of results ----

template <class Inc, class F>
ItemResult item_result(Inc (*get)(Reader&), F&& on_result) {
  static_assert(std::is_invocable_v<std::decay_t<F>&, std::size_t, Result<Inc>>,
                "evparallel: on_result of a map must be void(std::size_t index, Result<Inc>)");
  return [get, on_result = std::forward<F>(on_result)](std::size_t index, Reader* in,
                                                       const Error* error) mutable {
    on_result(index, in ? decoded(get, *in) : Result<Inc>(*error));
  };
}

}  // namespace detail

}  // namespace evparallel
