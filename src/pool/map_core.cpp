// map_core.cpp - sends the items of a map to children: pulled, in chunks, and bisected.
// Runs in: parent.  Licence: see COPYING.
#include "pool/map_core.hpp"

#include "base/negative.hpp"
#include "base/no_memory.hpp"
#include "shared/cancel_table.hpp"
#include "pool/pool_core.hpp"
#include "pool/pool_format.hpp"

#include <algorithm>
#include <new>

namespace evparallel::detail {

namespace {

// The time that a chunk should take in a child, and the time after which the child returns the
// rest.
constexpr double chunk_ns = 1e7;
constexpr std::int64_t yield_after_ns = 50000000;
constexpr std::size_t most_items = 4096;
// Items of at least this size are sent alone.
constexpr std::size_t large_item = std::size_t{64} << 10;
// How far results may be ahead of a late one if they are delivered in order.
constexpr std::size_t chunks_ahead = 64;
constexpr std::size_t bytes_ahead = std::size_t{64} << 20;
// A chunk is sent when it has been in the making for this time.
constexpr std::int64_t long_pulls_ns = 1000000;
// What a child claims to have spent on a chunk counts for at most an hour.
constexpr std::int64_t most_spent_ns = std::int64_t{3600} * 1000000000;
// A pull of this time is slow: a turn of the loop beside it costs little.
constexpr std::int64_t slow_pull_ns = 20000;

void begin_chunk(Writer& out, std::int64_t time) {
  out.write(&chunk_of_calls, sizeof chunk_of_calls);
  const ChunkHead head{time};
  out.write(&head, sizeof head);
}

constexpr std::size_t items_at = sizeof chunk_of_calls + sizeof(ChunkHead);

std::string_view items_of(const Chunk& chunk) {
  return chunk.argument.adopted().substr(items_at);
}

// The size of the first `count` items in bytes.
std::size_t size_of_items(std::string_view items, std::uint32_t count) {
  Reader in(items);
  for (; count > 0; --count) {
    ItemLength length;
    in.read(&length, sizeof length);
    in.read(length);
  }
  return items.size() - in.remaining();
}

}  // namespace

MapCore::MapCore(PoolCore& pool, const std::shared_ptr<Loop>& loop, MapTask task,
                 MapOptions options, Source source)
    : pool_(&pool),
      loop_(loop),
      task_(std::move(task)),
      options_(std::move(options)),
      pushed_(source == Source::pushed ? std::make_unique<PushedItems>() : nullptr),
      max_decoded_(pool.call_options().max_decoded),
      quick_enough_(task_.may_wait ? 256 : 8),
      pulls_for_look_(task_.may_wait ? 4 : 64),
      meter_(options_.total.value_or(0)),
      began_at_(now_ns()),
      reported_at_(began_at_) {
  refuse_negative("MapOptions::progress_every", options_.progress_every);
  // A chunk of a given size is divided only if the range is one that waits.
  if (pushed_ || (options_.chunk > 1 && !task_.may_wait)) pulls_for_look_ = 0;
  waits_ = task_.may_wait && options_.chunk <= 1;
  if (pushed_)
    task_.pull = [this](Writer& item, std::optional<Error>& refused) {
      return take_pushed(item, refused);
    };
  set_brakes();
  if (options_.show == ProgressForm::quiet) return;
  ProgressOptions shown;
  shown.form = options_.show;
  bar_ = std::make_unique<ProgressBar>(shown);
}

// ---- choosing items ----

void MapCore::set_brakes() noexcept {
  input_held_ = input_over_ || paused_ || (pushed_ && pushed_->queue.empty());
  output_held_ = over_ || paused_;
}

bool MapCore::may_pull() const noexcept {
  if (input_held_) return false;
  return !options_.ordered || (under_way_ + ready_.size() < chunks_ahead * pool_->worker_limit() &&
                               ready_bytes_ < bytes_ahead);
}

bool MapCore::has_chunk() const noexcept {
  return !output_held_ && (!again_.empty() || may_pull());
}

std::size_t MapCore::wanted() const noexcept {
  if (output_held_) return 0;
  std::size_t wanted = again_.size();
  if (!may_pull()) return wanted;
  if (pushed_) return wanted + pushed_->queue.size();
  // The total that the caller has given may be wrong.
  const std::uint64_t total = options_.total ? *options_.total : SIZE_MAX / 2;
  wanted += std::max<std::size_t>(
      static_cast<std::size_t>(total - std::min<std::uint64_t>(total, pulled_)), 1);
  return wanted;
}

std::size_t MapCore::chunk_size(std::size_t most) const noexcept {
  if (waits_) return 1;
  if (options_.chunk > 0) return std::min({options_.chunk, most, std::size_t{UINT32_MAX}});
  std::size_t size = 1;
  if (cost_ns_ > 0)
    size = static_cast<std::size_t>(
        std::clamp(chunk_ns / cost_ns_, 1.0, static_cast<double>(most_items)));
  std::size_t left = 0;
  if (pushed_)
    left = pushed_->queue.size();
  else if (options_.total && *options_.total > pulled_)
    left = *options_.total - static_cast<std::size_t>(pulled_);
  if (left > 0) {
    // Chunks get smaller towards the end, so that all children end at the same time.
    size = std::min(size, left / (2 * pool_->worker_limit()) + 1);
  }
  return std::min(size, most);
}

// Memory for the end of each chunk that is under way, of the next one, and of an item that is refused:
// a place for its result and one for that of a part, and two for what is sent again.
void MapCore::take_room() {
  const std::size_t chunks = under_way_ + 2;
  if (again_.capacity() - again_.size() < 2 * chunks)
    again_.reserve(2 * again_.size() + 4 * chunks);
  while (room_.size() < 2 * chunks) {
    if (room_.capacity() < ready_.size() + 4 * chunks)
      room_.reserve(2 * ready_.size() + 8 * chunks);
    ReadyResults one;
    one.emplace(0, Ready());
    room_.push_back(one.extract(one.begin()));
  }
}

// Pulls an item into item_.  False: there is none, or it was refused and has failed.
bool MapCore::pull_item() {
  if (room_.size() < 2 * (under_way_ + 2)) take_room();  // an item that was refused has used some
  item_.clear();
  std::optional<Error> refused;
  bool there = false;
  bool returned = false;
  loop_->call([&] {
    there = task_.pull(item_, refused);
    returned = true;
  });
  if (!returned) summary_.stopped = true;
  if (over_) return false;
  if (!there) {
    input_over_ = true;
    set_brakes();
    meter_.set_total(pulled_);
    return false;
  }
  const std::uint64_t index = pulled_++;
  const std::size_t limit = pool_->max_message();
  if (!refused && item_.size() > limit)
    refused = Error(Errc::too_large, "too large: the message has " + std::to_string(item_.size()) +
                                         " bytes, and the limit is " + std::to_string(limit));
  if (!refused) return true;
  fail(index, 1, *refused);
  return false;
}

// Adds item_ to the chunk; false: it is sent alone.
bool MapCore::add_item(Writer& chunk, std::uint32_t count) {
  // Descriptors belong to a message, not to an item in it.
  if (item_.size() >= large_item || item_.attached()) {
    Chunk alone;
    alone.first = pulled_ - 1;
    alone.count = 1;
    alone.single = true;
    alone.argument.write(&single_call, sizeof single_call);
    alone.argument.write(item_.written());
    if (item_.attached())
      for (const Attachment& one : *item_.attached()) alone.argument.attach(one.fd, one.owner);
    if (item_.adopted_owner())
      alone.argument.adopt(item_.adopted_owner(), item_.adopted().data(), item_.adopted().size());
    else
      alone.argument.share(0);
    again_.insert(again_.begin(), std::move(alone));
    return false;
  }
  if (count == 0) begin_chunk(chunk, options_.chunk > 0 ? 0 : yield_after_ns);
  const ItemLength length = static_cast<ItemLength>(item_.size());
  chunk.write(&length, sizeof length);
  chunk.write(item_.written());
  if (item_.adopted_owner()) chunk.write(item_.adopted());
  return true;
}

// The same; without memory the item fails.
bool MapCore::add_or_fail(Writer& chunk, std::uint32_t count) {
  try {
    return add_item(chunk, count);
  } catch (const std::bad_alloc&) {
    fail(pulled_ - 1, 1, no_memory(Delivery::not_sent));
    return false;
  }
}

// A range that waits for input must not hold back the items before, which need not be known to
// wait: from the pull that takes long, a chunk is sent as it is, and the range is called once in
// each turn of the loop, until it has been quick for long.  A clock costs as much as a short item,
// so not every pull is measured.
bool MapCore::took_long(PullTimes& times) {
  const std::int64_t now = now_ns();
  const std::int64_t time = now - std::exchange(times.looked_at, now);
  const std::uint64_t pulls = pulled_ - std::exchange(times.pulled, pulled_);
  const bool slow = time > slow_pull_ns * static_cast<std::int64_t>(pulls);
  const bool in_the_making_for_long = now - times.began_at > long_pulls_ns;
  quick_pulls_ = slow ? 0 : quick_pulls_ + pulls;
  waits_ = waits_ ? quick_pulls_ < quick_enough_ : slow && in_the_making_for_long;
  return waits_ || in_the_making_for_long;
}

bool MapCore::next_chunk(Chunk& chunk, std::size_t most) {
  take_room();
  Writer argument;
  chunk.first = pulled_;
  const std::size_t size = again_.empty() ? chunk_size(most) : 0;
  PullTimes times{0, 0, pulled_};
  std::uint64_t look_at = UINT64_MAX;
  if (size > 0 && pulls_for_look_ > 0) {
    times.began_at = times.looked_at = now_ns();
    look_at = pulled_ + 1;
  }
  while (chunk.count < size && argument.size() < chunk_bytes && may_pull()) {
    if (pull_item() && add_or_fail(argument, chunk.count))
      ++chunk.count;
    else if (chunk.count > 0 || !again_.empty())
      break;
    else
      chunk.first = pulled_;
    if (pulled_ < look_at) continue;
    if (took_long(times)) break;
    look_at += pulls_for_look_;
  }
  if (over_) return false;
  if (chunk.count > 0) {
    try {
      argument.share(0);
    } catch (const std::bad_alloc&) {
      fail(chunk.first, chunk.count, no_memory(Delivery::not_sent));
      return false;
    }
    chunk.argument = std::move(argument);
  } else if (!again_.empty()) {
    chunk = std::move(again_.back());
    again_.pop_back();
  } else {
    check_finished();
    return false;
  }
  ++under_way_;
  chunk.map = shared_from_this();
  return true;
}

void MapCore::take_back(Chunk&& chunk) noexcept {
  --under_way_;
  if (!over_) put_back(std::move(chunk));
}

// take_room() has made room for it.
void MapCore::put_back(Chunk&& chunk) noexcept {
  chunk.map.reset();
  if (!stopping_) again_.push_back(std::move(chunk));
}

void MapCore::again(std::string_view items, std::uint64_t first, std::uint32_t count,
                    unsigned attempts) noexcept try {
  Chunk chunk;
  begin_chunk(chunk.argument, options_.chunk > 0 ? 0 : yield_after_ns);
  chunk.argument.write(items);
  chunk.argument.share(0);
  chunk.first = first;
  chunk.count = count;
  chunk.attempts = attempts;
  put_back(std::move(chunk));
} catch (const std::bad_alloc&) {
  fail(first, count, no_memory(Delivery::not_sent));
}

// ---- results ----

void MapCore::record_cost(std::int64_t spent_ns, std::size_t items) noexcept {
  const double cost = std::max(static_cast<double>(spent_ns) / static_cast<double>(items), 1.0);
  cost_ns_ = cost_ns_ <= 0 ? cost : cost_ns_ + (cost - cost_ns_) / 4;
  if (pool_) pool_->counts().run.add(static_cast<std::int64_t>(cost), items);
}

// A child may answer fewer items than it was sent; the rest is sent again.
bool MapCore::count_answers(Chunk& chunk, Reader& in, Ready& ready, std::int64_t& spent_ns) {
  try {
    ChunkAnswerHead head;
    in.read(&head, sizeof head);
    spent_ns = std::clamp<std::int64_t>(head.spent_ns, 0, most_spent_ns);
    ready.bytes = in.rest();
    ready.count = 0;
    Reader heads(ready.bytes);
    for (; heads.remaining() > 0; ++ready.count) {
      ItemHead item;
      heads.read(&item, sizeof item);
      heads.read(item.length());
    }
    if (ready.count == 0 || ready.count > chunk.count) return false;
  } catch (const Error&) {
    return false;
  }
  const std::string_view items = items_of(chunk);
  if (const std::uint32_t left = chunk.count - ready.count)
    again(items.substr(size_of_items(items, ready.count)), chunk.first + ready.count, left,
          chunk.attempts);
  return true;
}

void MapCore::answered(Chunk&& chunk, Reader& in, std::int64_t spent_ns) {
  const auto keep_this = shared_from_this();
  --under_way_;
  if (over_) return;
  Ready ready;
  ready.first = chunk.first;
  ready.single = chunk.single;
  ready.count = chunk.count;
  if (chunk.single && in.has_descriptors()) {
    ready.error = error_or_no_memory(Delivery::started, no_descriptors_in_results);
  } else if (chunk.single) {
    try {
      ready.own = in.take_rest();
      ready.bytes = ready.own;
    } catch (const std::bad_alloc&) {
      ready.error = no_memory(Delivery::started);
    }
  } else if (!count_answers(chunk, in, ready, spent_ns)) {
    return fail(chunk.first, chunk.count, error_or_no_memory(Delivery::started, [] {
                  return Error(Errc::bad_message, "bad message: the answer to a chunk is malformed")
                      .with_delivery(Delivery::started);
                }));
  }
  if (ready.count > 0) record_cost(spent_ns, ready.count);
  if (!again_.empty()) pool_->pump_later();
  const bool at_once = !delivering_ && !paused_ && ready_.empty() && ready.count > 0 &&
                       (!options_.ordered || ready.first == next_);
  if (!at_once) {
    keep(std::move(ready));
    return deliver();
  }
  delivering_ = true;
  const bool all = deliver_ready(ready);
  delivering_ = false;
  if (!all) keep(std::move(ready));
  deliver();
}

void MapCore::failed(Chunk&& chunk, const Error& error) {
  const auto keep_this = shared_from_this();
  --under_way_;
  if (over_) return;
  const Options& options = pool_->call_options();
  const bool begun = error.delivery() == Delivery::started;
  if (!begun && error.code() != Errc::too_large) {
    ++pool_->counts().retried;
    put_back(std::move(chunk));
  } else if (chunk.count > 1 && options_.repeatable) {
    ++pool_->counts().retried;
    bisect(chunk);
  } else if (chunk.count == 1 && begun && error.exit() && options.idempotent &&
             chunk.attempts < options.retries) {
    ++pool_->counts().retried;
    ++chunk.attempts;
    put_back(std::move(chunk));
  } else {
    fail(chunk.first, chunk.count, error);
  }
  check_finished();
  if (pool_) pool_->pump_later();
}

// Each half is sent to a child of its own.
void MapCore::bisect(const Chunk& chunk) {
  const std::string_view items = items_of(chunk);
  const std::uint32_t half = chunk.count / 2;
  const std::size_t size = size_of_items(items, half);
  again(items.substr(size), chunk.first + half, chunk.count - half, chunk.attempts);
  again(items.substr(0, size), chunk.first, half, chunk.attempts);
}

void MapCore::fail(std::uint64_t first, std::uint32_t count, const Error& error) noexcept {
  Ready ready;
  ready.first = first;
  ready.count = count;
  ready.error = error;
  keep(std::move(ready));
  deliver_later();
}

}  // namespace evparallel::detail
