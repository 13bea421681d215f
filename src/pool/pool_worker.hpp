// pool_worker.hpp - one child of a pool, and the calls and chunks that were sent to it.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "base/no_memory.hpp"
#include "call/callee.hpp"

#include <memory>
#include <optional>
#include <vector>

namespace evparallel::detail {

class PoolCore;

class PoolWorker final : public CalleeOwner, public std::enable_shared_from_this<PoolWorker> {
public:
  enum class Stage : std::uint8_t { starting, ready, retiring, ended };

  // A call, or a chunk of a map.
  struct Sent {
    std::uint64_t id;         // in the pool
    std::uint64_t remote_id;  // in the callee
    std::int64_t sent_at;
    std::uint32_t items;
    int priority;
    bool chunk;
  };

  PoolWorker(PoolCore& pool, const std::shared_ptr<Loop>& loop,
             std::shared_ptr<const ChildSpec> spec)
      : pool_(&pool), loop_(loop), spec_(std::move(spec)), callee_(*this) {}
  ~PoolWorker() { callee_.abort(); }

  // Asks for the child.  Fails: Error.
  void start();
  // Fails: std::bad_alloc, and nothing was sent.
  void send(const Sent&, Writer& argument, std::int64_t deadline);
  // Takes back what the child has not begun, and returns it, the last one first; only what has a
  // priority lower than `below`.  end_if_done() must follow.
  std::vector<Sent> take_back_all(std::int64_t below) noexcept;
  bool take_back_sent(std::uint64_t id);
  // Ends a child that is retiring and has nothing left to do.
  void end_if_done();
  // The chunk whose answer has come in part, as its id in the pool; 0: there is none.
  std::uint64_t chunk_under_way() const noexcept;
  void cancel_sent(std::uint64_t id);
  void set_deadline_of_sent(std::uint64_t id, std::chrono::nanoseconds);
  // Sends nothing more; the child ends when it has answered.
  void retire();
  // Sends SIGTERM to the child, and SIGKILL `grace` later; its answers are not handled any more.
  void give_up(std::chrono::milliseconds grace);
  // Ends the child without further callbacks.
  void abort() noexcept;
  pid_t pid() const noexcept { return callee_.pid(); }

  // Removes a call or chunk.  Returns nothing if it is not here.
  std::optional<Sent> take_sent(std::uint64_t id);

  // It accepts calls.
  bool usable() const noexcept { return callee_.usable(); }
  // Writes what was sent in this turn of the loop.
  void flush() { callee_.flush(); }
  bool free() const noexcept { return sent.empty() && !has_lost_calls(); }
  // Some calls were given up that the child may still run.
  bool has_lost_calls() const noexcept { return lost_calls.peek() && !lost_calls.peek()->empty(); }
  // The time since which it runs its current call.
  std::int64_t busy_since() const noexcept {
    return sent.empty() ? last_answer_at : std::max(sent.front().sent_at, last_answer_at);
  }

  Stage stage = Stage::starting;
  bool standby = false;      // it waits for the end of the child that it replaces
  bool worn = false;         // it is replaced when that is possible
  bool trial = false;        // the first child of a replacement, until it is ready
  bool outdated = false;     // it runs the old function of a pool that has a new one
  bool spent = false;        // another call could need more processor time than it may use
  bool recycles = false;     // it replaces a child that was worn
  bool was_ready = false;    // it has reported that it is ready for calls
  bool begun = false;        // it has begun a call, or answered one
  std::uint32_t chunks = 0;  // of `sent`
  PoolWorker* successor = nullptr;
  std::uint64_t sent_total = 0;  // items that were sent to it and not taken back
  std::uint64_t answered = 0;    // items
  std::int64_t started_at = 0;
  std::int64_t last_answer_at = 0;
  std::int64_t looked_at = 0;  // the time of the last check of its memory
  std::size_t first_memory = 0;
  double cpu_seconds = 0;  // its processor time at the last look at it
  std::vector<Sent> sent;
  // How it has ended, in memory that is taken before; until the pool has handled it.
  struct End {
    bool known = false;
    bool expected = false;
    Error error = no_memory(Delivery::not_sent);
  };
  std::unique_ptr<End> ending;
  Lazy<std::vector<std::uint64_t>> lost_calls;

private:
  std::vector<Sent>::iterator find_sent(std::uint64_t id);
  void keep_lost_call(std::uint64_t remote_id) noexcept;
  void answer(UnansweredCall&, const Error&);
  void on_result(std::uint64_t id, Reader*, const Error*);

  const std::shared_ptr<Loop>& loop() const noexcept override { return loop_; }
  const ChildSpec& spec() const noexcept override { return *spec_; }
  void on_started() override;
  void on_ready() override;
  void complete_later(std::unique_ptr<LateAnswer>) noexcept override;
  void prepare_for_end() override;
  void on_abandoned_call_done(std::uint64_t remote_id) override;
  void on_ended(Callee&, const ExitStatus&, const Error&) override;

  PoolCore* pool_;
  std::shared_ptr<Loop> loop_;
  std::shared_ptr<const ChildSpec> spec_;
  std::uint64_t next_id_ = 1;
  Callee callee_;
};

}  // namespace evparallel::detail
