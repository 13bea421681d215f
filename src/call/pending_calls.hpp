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
  bool held = false;                       // not sent, because the child may have ended
  Delivery delivery = Delivery::not_sent;  // of a call whose child was given up
};

// A call with its argument, so that it can be made again.
struct KeptCall {
  std::uint64_t id = 0;
  PendingCall call{};
  Writer argument{};
  bool argument_lost = false;  // there was no memory for it: it cannot be made again
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

  // Requires: an id above all earlier ones.  `argument`: is kept, so that the call can be made again,
  // a long one by keep_argument(); nullptr: it is not.
  // Fails: std::bad_alloc, and nothing was added.
  PendingCall& add(std::uint64_t id, PendingCall&&, const Writer* argument);
  // Takes the argument of the last call, if it is a long one: only when it was sent.
  void keep_argument(Writer&) noexcept;
  // nullptr: the id was answered, or never existed.
  PendingCall* find(std::uint64_t id) noexcept;
  // Removes the call; returns an empty one if there is none.
  PendingCall take(std::uint64_t id);
  // Removes all calls; returns them in order.
  // Fails: std::bad_alloc, and nothing was removed.
  std::vector<KeptCall> take_all();
  // Removes one call, without its argument.  Requires: there is one.
  KeptCall take_any() noexcept;
  // Calls f(id, call) for each, in any order.
  template <class F>
  void for_each(F f);
  std::size_t count() const noexcept;

private:
  void give_back() noexcept;
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
  void reserve_argument(Entry&, const Writer&);
  KeptCall kept(std::uint64_t id, Entry&, std::size_t at) noexcept;
  template <class F>
  void for_each(F f) {
    if (any_late())
      for (auto& item : *late) f(item.first, item.second.call);
    for (std::size_t i = 0; i < row.size(); ++i)
      if (row[i].call.answer) f(first_id + i, row[i].call);
  }
  void pop_front() noexcept;
  void clear() noexcept;

  RingBuffer<Entry> row;
  ByteQueue bytes{8192};
  Lazy<Late> late;
  std::uint64_t first_id = 0;
  std::size_t count = 0;
};

template <class F>
void PendingCalls::for_each(F f) {
  if (Waiting* const all = waiting_.peek()) all->for_each(f);
}

inline std::size_t PendingCalls::count() const noexcept {
  return waiting_.peek() ? waiting_.peek()->count : 0;
}

}  // namespace evparallel::detail
