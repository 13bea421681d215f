// pool_worker.hpp - one child of a pool, and what it was sent.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "call/remote_core.hpp"

#include <vector>

namespace evparallel {

namespace detail {

class PoolCore;

class PoolWorker final : public RemoteCore {
public:
  enum class Stage : std::uint8_t { starting, ready, retiring, ended };

  // A call, or a chunk of a map.
  struct Sent {
    std::uint64_t id;         // of the pool
    std::uint64_t remote_id;  // of the child
    std::int64_t sent_at;
    std::uint32_t items;
    int priority;
    bool chunk;
  };

  PoolWorker(PoolCore& pool, const std::shared_ptr<Loop>& loop,
             std::shared_ptr<const ChildSpec> pattern)
      : RemoteCore(loop, std::move(pattern), ChildTable::single), pool_(&pool) {}

  // Asks for the child.  Fails: Error.
  void start();
  // Fails: std::logic_error, and nothing was sent.
  void send(const Sent&, Writer& argument, std::int64_t deadline);
  // What nobody has begun is taken out and given back, beginning with the last; `below`: only what
  // has a lower priority.
  std::vector<Sent> take_back_all(std::int64_t below);
  bool take_back_sent(std::uint64_t id);
  void cancel_sent(std::uint64_t id);
  void set_deadline_of_sent(std::uint64_t id, std::chrono::nanoseconds);
  // It gets nothing more, and ends when it has answered.
  void retire();
  // It is to end; nobody hears of it any more.
  void leave() noexcept;

  // Removes it.  Nothing: it is not here.
  std::optional<Sent> take_sent(std::uint64_t id);

  std::shared_ptr<PoolWorker> self() {
    return std::static_pointer_cast<PoolWorker>(shared_from_this());
  }
  bool free() const noexcept { return sent.empty() && !has_lost_calls(); }
  // Calls that were given up, and it may be at them still.
  bool has_lost_calls() const noexcept { return lost_calls.peek() && !lost_calls.peek()->empty(); }
  // Since when it is at what it is at.
  std::int64_t busy_since() const noexcept {
    return sent.empty() ? last_answer_at : std::max(sent.front().sent_at, last_answer_at);
  }

  Stage stage = Stage::starting;
  bool spare = false;        // it waits for the end of the one that it is to replace
  bool worn = false;         // it is to be replaced when that is possible
  bool recycles = false;     // it came in place of one that had done its part
  bool begun = false;        // it has begun a call, or answered one
  std::uint32_t chunks = 0;  // of what was sent
  PoolWorker* successor = nullptr;
  std::uint64_t taken = 0;     // items that it was sent and not taken back
  std::uint64_t answered = 0;  // items
  std::int64_t started_at = 0;
  std::int64_t last_answer_at = 0;
  std::int64_t looked_at = 0;  // at its memory
  std::size_t first_memory = 0;
  std::vector<Sent> sent;
  Lazy<std::vector<std::uint64_t>> lost_calls;

private:
  std::vector<Sent>::iterator find_sent(std::uint64_t id);
  void end_if_done();
  void heard(std::uint64_t id, Reader*, const Error*);
  void on_child_ready() override;
  void on_child_ended(const ExitStatus&, const Error&) override;
  void on_given_up_answered(std::uint64_t remote_id) override;

  PoolCore* pool_;
};

}  // namespace detail

}  // namespace evparallel
