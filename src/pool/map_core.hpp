// map_core.hpp - the implementation of a map: its items and their results.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "loop/event_loop.hpp"

#include <evparallel/pool.hpp>

#include <deque>
#include <map>

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

class PoolCore;

class MapCore final : public MapInterface, public std::enable_shared_from_this<MapCore> {
public:
  MapCore(PoolCore&, const std::shared_ptr<Loop>&, MapTask, MapOptions);

  // ---- to the children ----
  int priority() const noexcept { return options_.priority; }
  // True if next_chunk() may return a chunk.
  bool has_chunk() const noexcept;
  // The number of further children that could work for it.
  std::size_t wanted() const noexcept;
  // True if the chunk of next_chunk() has at most `most` items.
  bool fits(std::size_t most) const noexcept {
    return again_.empty() || again_.front().count <= most;
  }
  // Gives the next chunk, of at most `most` items.  False: there is none now.  Requires:
  // fits(most).
  bool next_chunk(Chunk&, std::size_t most);
  // Takes back a chunk that no child has begun.
  void take_back(Chunk&&);

  // ---- from the children ----
  void answered(Chunk&&, Reader&, std::int64_t spent_ns);
  // Its child has ended, or the chunk was refused.
  void failed(Chunk&&, const Error&);

  // ---- ends ----
  void cancel() override;
  void stop(const std::optional<Error>&);  // begins nothing more
  void pool_gone() noexcept;               // the same as cancel()
  void on_loop_destroyed() noexcept;
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

  bool pull_item();
  bool add_item(Writer& chunk, std::uint32_t count);
  std::size_t chunk_size(std::size_t most) const noexcept;
  bool may_pull() const noexcept;
  void put_back(Chunk&&);
  bool count_answers(Chunk&, Reader&, Ready&, std::int64_t& spent_ns);
  void again(std::string_view items, std::uint64_t first, std::uint32_t count, unsigned attempts);
  void bisect(const Chunk&);
  void fail(std::uint64_t first, std::uint32_t count, const Error&);
  void keep(Ready&&);
  void record_cost(std::int64_t spent_ns, std::size_t items) noexcept;

  void deliver();
  void deliver_later();
  bool deliver_ready(Ready&);
  void deliver_item(std::uint64_t index, Reader*, const Error*);
  void report(bool last);
  void end();
  void finish();
  void check_finished();

  PoolCore* pool_;
  std::shared_ptr<Loop> loop_;
  MapTask task_;
  MapOptions options_;
  Writer item_;  // the item that was pulled last

  std::uint64_t pulled_ = 0;
  bool input_over_ = false;
  std::deque<Chunk> again_;    // sent before any other
  std::size_t under_way_ = 0;  // chunks that were sent to children
  double cost_ns_ = 0;         // of an item; 0: not known

  std::map<std::uint64_t, Ready> ready_;
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
