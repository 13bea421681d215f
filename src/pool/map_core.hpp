// map_core.hpp - a map's inside: its items on their way, and their results.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "loop/event_loop.hpp"

#include <evparallel/pool.hpp>

#include <deque>
#include <map>

namespace evparallel {

namespace detail {

// Items that follow one another and travel together.
struct Chunk {
  std::shared_ptr<MapCore> map;
  Writer argument;  // shared: a copy costs nothing
  std::uint64_t first = 0;
  std::uint32_t count = 0;
  unsigned attempts = 0;
  bool single = false;  // one item, which travels as a call does
};

class MapCore : public std::enable_shared_from_this<MapCore> {
public:
  MapCore(PoolCore&, const std::shared_ptr<Loop>&, MapTask, MapOptions);

  // ---- out: to children ----
  int priority() const noexcept { return options_.priority; }
  // next_chunk() may give one.
  bool has_chunk() const noexcept;
  // How many more children could work for it.
  std::size_t wanted() const noexcept;
  // What next_chunk() would give has at most `most` items.
  bool fits(std::size_t most) const noexcept {
    return again_.empty() || again_.front().count <= most;
  }
  // At most `most` items.  False: there is none now.  Requires: it fits.
  bool next_chunk(Chunk&, std::size_t most);
  // No child has begun it.
  void take_back(Chunk&&);

  // ---- back ----
  void answered(Chunk&&, Reader&, std::int64_t spent_ns);
  // Its child has ended, or it was refused.
  void failed(Chunk&&, const Error&);

  // ---- ends ----
  void cancel();
  void stop(const std::optional<Error>&);  // nothing more is begun
  void pool_gone() noexcept;               // as cancel()
  void on_loop_destroyed() noexcept;
  Progress progress() const;

private:
  // Results that are to be delivered.
  struct Ready {
    std::uint64_t first = 0;
    std::uint32_t count = 0;
    bool single = false;
    std::string_view bytes{};  // of `own`, or of a message that is being heard
    std::string own{};
    std::optional<Error> error{};  // of all of them
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
  void note_cost(std::int64_t spent_ns, std::size_t items) noexcept;

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
  Writer item_;  // the one that was pulled last

  std::uint64_t pulled_ = 0;
  bool input_over_ = false;
  std::deque<Chunk> again_;    // before any other
  std::size_t under_way_ = 0;  // chunks that children have
  double cost_ns_ = 0;         // of an item; 0: not known

  std::map<std::uint64_t, Ready> ready_;
  std::size_t ready_bytes_ = 0;
  std::uint64_t next_ = 0;  // whose result is to be delivered, where they are ordered
  bool delivering_ = false;
  bool deliver_deferred_ = false;

  MapSummary summary_;
  mutable ProgressMeter meter_;  // to ask it is to let it know the time
  std::int64_t began_at_;
  std::int64_t reported_at_;
  bool stopping_ = false;  // nothing more is begun
  bool over_ = false;      // no result is delivered any more
};

}  // namespace detail

}  // namespace evparallel
