// pool_worker.hpp - one child of a pool, and the calls and chunks that were sent to it.
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
    std::uint64_t id;         // in the pool
    std::uint64_t remote_id;  // in the child
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
  // Takes back what the child has not begun, and returns it, the last one first; only what has a
  // priority lower than `below`.
  std::vector<Sent> take_back_all(std::int64_t below);
  bool take_back_sent(std::uint64_t id);
  void cancel_sent(std::uint64_t id);
  void set_deadline_of_sent(std::uint64_t id, std::chrono::nanoseconds);
  // Sends nothing more; the child ends when it has answered.
  void retire();
  // Ends the child without further callbacks.
  void leave() noexcept;

  // Removes a call or chunk.  Returns nothing if it is not here.
  std::optional<Sent> take_sent(std::uint64_t id);

  std::shared_ptr<PoolWorker> self() {
    return std::static_pointer_cast<PoolWorker>(shared_from_this());
  }
  bool free() const noexcept { return sent.empty() && !has_lost_calls(); }
  // Some calls were given up that the child may still run.
  bool has_lost_calls() const noexcept { return lost_calls.peek() && !lost_calls.peek()->empty(); }
  // The time since which it runs its current call.
  std::int64_t busy_since() const noexcept {
    return sent.empty() ? last_answer_at : std::max(sent.front().sent_at, last_answer_at);
  }

  Stage stage = Stage::starting;
  bool spare = false;        // it waits for the end of the child that it replaces
  bool worn = false;         // it is replaced when that is possible
  bool recycles = false;     // it replaces a child that was worn
  bool begun = false;        // it has begun a call, or answered one
  std::uint32_t chunks = 0;  // of `sent`
  PoolWorker* successor = nullptr;
  std::uint64_t taken = 0;     // items that were sent to it and not taken back
  std::uint64_t answered = 0;  // items
  std::int64_t started_at = 0;
  std::int64_t last_answer_at = 0;
  std::int64_t looked_at = 0;  // the time of the last check of its memory
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
