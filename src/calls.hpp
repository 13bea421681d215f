// calls.hpp - the calls of one child that wait for their answers, by id.
// Licence: see COPYING.
#pragma once

#include "lazy.hpp"
#include "notes.hpp"
#include "row.hpp"

#include <evparallel/run.hpp>

#include <unordered_map>
#include <utility>
#include <vector>

namespace evparallel {

namespace detail {

struct PendingCall {
  Answer answer;             // empty: there is no such call
  Writer argument;           // kept until the answer: the call may have to be made again
  std::uint64_t offset = 0;  // of its frame, in the bytes of the pipe
  std::int64_t deadline = no_deadline;
  Note* note = nullptr;
  unsigned attempts = 0;  // how often it was made again
  bool held = false;      // it has not even been put into the pipe
};

// Ids rise and answers mostly come in order, so the calls stand in a row from `first_id` on; a few
// that are answered late move out of the way.
class Calls {
public:
  // Requires: an id above all that were added before.
  void add(std::uint64_t id, PendingCall);
  // nullptr: an id that was answered, or never was.
  PendingCall* find(std::uint64_t id) noexcept;
  // Takes the call out; an empty one if there is none.
  PendingCall take(std::uint64_t id);
  // All of them, in order.
  std::vector<std::pair<std::uint64_t, PendingCall>> take_all();
  std::size_t count() const noexcept { return count_; }

private:
  void move_late_calls();

  using Late = std::unordered_map<std::uint64_t, PendingCall>;
  bool any_late() const noexcept { return late_.peek() && !late_.peek()->empty(); }

  Row<PendingCall> row_;
  Lazy<Late> late_;
  std::uint64_t first_id_ = 0;
  std::size_t count_ = 0;
};

}  // namespace detail

}  // namespace evparallel
