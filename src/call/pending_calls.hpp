// pending_calls.hpp - the calls of one child that wait for their answers, by id.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "base/byte_queue.hpp"
#include "base/lazy.hpp"
#include "base/object_pool.hpp"
#include "base/ring_buffer.hpp"
#include "shared/cancel_table.hpp"

#include <evparallel/run.hpp>

#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace evparallel::detail {

struct PendingCall {
  Answer answer;             // empty: there is no such call
  std::uint64_t offset = 0;  // of its frame, in the bytes of the pipe
  std::int64_t deadline = no_deadline;
  CancelEntry* cancel_entry = nullptr;
  unsigned repeats_left = 0;
  bool held = false;  // not sent, because the child may have ended
};

// A call with its argument, so that it can be made again.
struct KeptCall {
  std::uint64_t id = 0;
  PendingCall call{};
  Writer argument{};
};

// Ids rise and answers mostly come in order, so the calls are in a ring buffer that begins with
// `first_id`, and the bytes of their arguments in a queue.  The few calls that are answered late
// are moved to a map.
class PendingCalls {
public:
  // The memory that exists only while calls wait.
  struct Waiting;
  // If it is pooled, it is returned to the pool with the last call.
  explicit PendingCalls(Pooled<Waiting> waiting = {}) noexcept : waiting_(std::move(waiting)) {}

  // Requires: an id above all earlier ones.  The memory of a short argument stays with the caller;
  // nullptr: the call is never made again.
  PendingCall& add(std::uint64_t id, PendingCall&&, Writer* argument);
  // nullptr: the id was answered, or never existed.
  PendingCall* find(std::uint64_t id) noexcept;
  // Removes the call; returns an empty one if there is none.
  PendingCall take(std::uint64_t id);
  // Removes all calls; returns them in order.
  std::vector<KeptCall> take_all();
  std::size_t count() const noexcept;

private:
  Pooled<Waiting> waiting_;
};

struct PendingCalls::Waiting {
  struct Entry {
    PendingCall call{};
    std::size_t size = 0;             // of its argument in `bytes`
    std::unique_ptr<Writer> apart{};  // an argument that is not in `bytes`
  };
  using Late = std::unordered_map<std::uint64_t, KeptCall>;
  bool any_late() const noexcept { return late.peek() && !late.peek()->empty(); }
  void move_late_calls();
  void keep_argument(Entry&, Writer&);
  KeptCall kept(std::uint64_t id, Entry&, std::size_t at);
  void pop_front() noexcept;
  void clear() noexcept;

  RingBuffer<Entry> row;
  ByteQueue bytes{8192};
  Lazy<Late> late;
  std::uint64_t first_id = 0;
  std::size_t count = 0;
};

inline std::size_t PendingCalls::count() const noexcept {
  return waiting_.peek() ? waiting_.peek()->count : 0;
}

}  // namespace evparallel::detail
