// map_core.hpp - the implementation of a map: its items and their results.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "base/ring_buffer.hpp"
#include "loop/event_loop.hpp"

#include <evparallel/pool.hpp>

#include <map>
#include <vector>

namespace evparallel::detail {

class MapCore;

// Consecutive items that are sent together.
struct Chunk {
  std::shared_ptr<MapCore> map;
  Writer argument;  // shared, so that a copy is cheap
  std::uint64_t first = 0;
  std::uint32_t count = 0;
  unsigned attempts = 0;
  bool single = false;  // one item, in the form of a call
};

// The items of a stream that no child has yet.
struct PushedItems {
  struct Item {
    Writer argument;
    std::optional<Error> refused{};
  };
  RingBuffer<Item> queue;
  std::size_t bytes = 0;  // and some for each descriptor
  bool closed = false;    // there will be no more
  bool drained = true;    // false: push() has returned false, and on_drain was not called since
  bool idle = true;       // the loop may end: nothing happens before the next push()
  CallbackSlot<void()> drain;
};

class PoolCore;

// A map, or a stream: that is a map whose items were pushed.
class MapCore final : public StreamInterface, public std::enable_shared_from_this<MapCore> {
public:
  enum class Source { range, pushed };

  MapCore(PoolCore&, const std::shared_ptr<Loop>&, MapTask, MapOptions, Source);

  // ---- to the children ----
  int priority() const noexcept { return options_.priority; }
  // True if next_chunk() may return a chunk.
  bool has_chunk() const noexcept;
  // The number of further children that could work for it.
  std::size_t wanted() const noexcept;
  // True if the chunk of next_chunk() has at most `most` items.
  bool fits(std::size_t most) const noexcept {
    return again_.empty() || again_.back().count <= most;
  }
  // Gives the next chunk, of at most `most` items.  False: there is none now.  Requires:
  // fits(most).
  bool next_chunk(Chunk&, std::size_t most);
  // The range may wait for input in next_chunk(), so everything that has come is handled first.
  bool may_wait() const noexcept { return waits_ && again_.empty(); }
  // Takes back a chunk that no child has begun.
  void take_back(Chunk&&) noexcept;

  // ---- from the children ----
  void answered(Chunk&&, Reader&, std::int64_t spent_ns);
  // Its child has ended, or the chunk was refused.
  void failed(Chunk&&, const Error&);

  // ---- a stream (stream.cpp) ----
  bool push(Writer& item, std::optional<Error>& refused) override;
  void set_on_drain(Callback<void()>) override;
  void close() override;

  // ---- brakes and ends ----
  void pause() override;
  void resume() override;
  void cancel() override;
  void stop(const std::optional<Error>&);  // begins nothing more
  void pool_gone() noexcept;               // the same as cancel()
  void on_loop_destroyed() noexcept;
  // As LoopObserver::retry().
  void retry();
  void finish();
  Progress progress() const override;

private:
  // Results that are ready for delivery.
  struct Ready {
    std::uint64_t first = 0;
    std::uint32_t count = 0;
    bool single = false;
    std::string_view bytes{};  // of `own`, or of a message that is being handled
    std::string own{};
    std::optional<Error> error{};  // the error of all of them
  };

  // When the pulls of a chunk were looked at.
  struct PullTimes {
    std::int64_t began_at;
    std::int64_t looked_at;
    std::uint64_t pulled;  // at that time
  };

  void close_here();
  void set_brakes() noexcept;
  bool pull_item();
  bool took_long(PullTimes&);
  bool take_pushed(Writer& item, std::optional<Error>& refused);
  bool above_mark() const noexcept;
  void check_drained();
  void drop_pushed();
  void set_idle(bool);
  bool add_item(Writer& chunk, std::uint32_t count);
  bool add_or_fail(Writer& chunk, std::uint32_t count);
  std::size_t chunk_size(std::size_t most) const noexcept;
  bool may_pull() const noexcept;
  void put_back(Chunk&&) noexcept;
  void take_room();
  bool count_answers(Chunk&, Reader&, Ready&, std::int64_t& spent_ns);
  void again(std::string_view items, std::uint64_t first, std::uint32_t count,
             unsigned attempts) noexcept;
  void bisect(const Chunk&);
  void fail(std::uint64_t first, std::uint32_t count, const Error&) noexcept;
  void keep(Ready&&) noexcept;
  void record_cost(std::int64_t spent_ns, std::size_t items) noexcept;

  void deliver();
  void deliver_later() noexcept;
  bool deliver_ready(Ready&);
  void deliver_item(std::uint64_t index, Reader*, const Error*);
  void report(bool last);
  void end_bar();
  void end() noexcept;
  void check_finished();

  PoolCore* pool_;
  std::shared_ptr<Loop> loop_;
  MapTask task_;
  MapOptions options_;
  Writer item_;                          // the item that was pulled last
  std::unique_ptr<PushedItems> pushed_;  // null: there is a range

  std::uint64_t pulled_ = 0;
  bool input_over_ = false;
  bool paused_ = false;
  bool input_held_ = false;        // nothing can be pulled: set_brakes()
  bool output_held_ = false;       // nothing can be delivered: set_brakes()
  bool waits_ = false;             // a pull may wait for input: one for each turn of the loop
  std::uint64_t quick_pulls_ = 0;  // in a row
  std::size_t max_decoded_;        // Options::max_decoded
  std::uint64_t quick_enough_;     // so many of them show that the range does not wait
  std::uint64_t pulls_for_look_;   // the time is looked at after so many pulls; 0: never
  std::vector<Chunk> again_;       // sent before any other, the last one first
  std::size_t under_way_ = 0;      // chunks that were sent to children
  double cost_ns_ = 0;             // of an item; 0: not known

  using ReadyResults = std::map<std::uint64_t, Ready>;
  ReadyResults ready_;
  // Places there, for what is under way: its end must not need memory.
  std::vector<ReadyResults::node_type> room_;
  std::size_t ready_bytes_ = 0;
  std::uint64_t next_ = 0;  // the next index to deliver, if the results are ordered
  bool delivering_ = false;
  bool deliver_deferred_ = false;

  MapSummary summary_;
  std::unique_ptr<ProgressBar> bar_;
  mutable ProgressMeter meter_;  // mutable because a query updates its time
  std::int64_t began_at_;
  std::int64_t reported_at_;
  bool stopping_ = false;  // nothing more is begun
  bool over_ = false;      // no result is delivered any more
};

}  // namespace evparallel::detail
