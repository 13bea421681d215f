// pool_core.hpp - the implementation of a Pool: its calls, its maps, and its children.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "pool/map_core.hpp"
#include "pool/pool_stats.hpp"
#include "pool/pool_worker.hpp"

#include <map>
#include <set>

namespace evparallel::detail {

using PoolQueueKey = std::pair<std::int64_t, std::uint64_t>;  // priority, negated; id
struct PoolCall;
using PoolQueue = std::map<PoolQueueKey, PoolCall*>;
using PoolDeadlines = std::set<std::pair<std::int64_t, std::uint64_t>>;  // time; id

// One call, from call() to its answer.
struct PoolCall {
  Answer answer;
  Writer argument;
  int priority = 0;
  unsigned repeats_left = 0;
  bool cancelled = false;
  std::int64_t deadline = no_deadline;
  std::int64_t since = 0;                // when it began to wait
  std::shared_ptr<PoolWorker> worker{};  // the child that has it; null: it waits
  // Its places among those that wait, while it does not: it may come back from a child when there is
  // no memory.
  PoolQueue::node_type place{};
  PoolDeadlines::node_type late{};
};

// How the children of a pool are made: its task, in each of its snapshots.
class PoolPatterns {
public:
  PoolPatterns() noexcept = default;
  PoolPatterns(const std::vector<std::shared_ptr<Replicas>>&, Task, const PoolOptions&);
  // The next one whose snapshot lives, in rotation; if none lives, one that reports it.
  const std::shared_ptr<const ChildSpec>& next() noexcept;
  bool alive() const noexcept;
  const Modules& modules() const noexcept { return all_.front()->replicas->modules(); }
  std::vector<std::shared_ptr<Replicas>> snapshots() const;
  // As it was given to the constructor.
  const Task& task() const noexcept { return task_; }

private:
  std::vector<std::shared_ptr<const ChildSpec>> all_{};  // one for each snapshot
  std::size_t turn_ = 0;
  Task task_;
};

// A replacement of the children that is under way.  First it has one child, on trial; the pool
// adopts the patterns and options when that child is ready.
struct Replacement {
  PoolPatterns patterns;
  PoolOptions options;
  bool adopted = false;
  PoolWorker* trial = nullptr;
  unsigned failed_starts = 0;  // of the trial, in a row
  std::int64_t start_at = 0;   // no start of a trial before this time
};

class PoolCore final : public PoolInterface,
                       public LoopObserver,
                       public CallTarget,
                       public std::enable_shared_from_this<PoolCore> {
public:
  PoolCore(const std::shared_ptr<Loop>&, const std::vector<std::shared_ptr<Replicas>>&, Task,
           const PoolOptions&);
  ~PoolCore() override { abort_here(); }

  // ---- calls (pool_calls.cpp) ----
  Call call(Writer& argument, Answer, const CallOptions&) override;
  Call refuse(const Error&, Answer) override;
  std::uint64_t next_id() const noexcept override { return next_id_; }
  bool full() const override;
  void set_on_drain(Callback<void()> c) override {
    loop_->check_thread();
    drain_.set(std::move(c));
  }
  void cancel(std::uint64_t id) override;
  void set_deadline(std::uint64_t id, std::chrono::nanoseconds) override;
  std::size_t pending() const override {
    loop_->check_thread();
    return pending_;
  }
  // An answer, or an error, from a child.
  void on_result(PoolWorker&, const PoolWorker::Sent&, Reader*, const Error*);

  // ---- maps ----
  const std::shared_ptr<Loop>& loop() const noexcept { return loop_; }
  std::shared_ptr<MapInterface> start_map(MapTask, MapOptions) override;
  std::shared_ptr<StreamInterface> start_stream(MapTask, MapOptions) override;
  void stream_idle(bool) noexcept;
  void forget_map(const MapCore&) noexcept;
  void pump_later() noexcept;
  // For lack of memory the map could not do so itself.
  void finish_later(std::shared_ptr<MapCore>) noexcept;
  const Options& call_options() const noexcept { return options_.child; }
  std::size_t max_message() const noexcept { return max_message_; }
  // An error of one item, with names for the addresses of its backtrace.
  Error explained(const Error&) const noexcept;
  std::size_t worker_limit() const noexcept { return options_.workers; }
  PoolCounts& counts() noexcept { return counts_; }

  // ---- children (pool_lifecycle.cpp) ----
  void begin();
  void child_ready(PoolWorker&);
  void child_ended(PoolWorker&, const ExitStatus&, const Error&);
  void child_free(PoolWorker&);

  // ---- events (pool_events.cpp) ----
  void add_on_ready(Callback<void(Result<void>)>) override;
  void add_on_replaced(Callback<void(Result<void>)>) override;
  void add_on_closed(Callback<void()>) override;
  void set_on_worker(Callback<void(const WorkerEvent&)> c) override {
    loop_->check_thread();
    if (loop_->alive()) on_worker_.set(std::move(c));
  }
  void child_started(PoolWorker&);

  // ---- replacement (pool_replace.cpp) ----
  void replace(std::optional<Task>, const std::optional<PoolOptions>&) override;

  // ---- ends ----
  void close() override;
  LoopRunner& loop_runner() noexcept override { return *loop_; }
  void shutdown(std::chrono::milliseconds grace) override;
  void abort() noexcept override;
  PoolStats stats() const override;

private:
  enum class Next { none, call, chunk };
  enum class Stage { open, closing, stopping, over };

  static PoolQueueKey key_of(std::uint64_t id, const PoolCall& call) noexcept {
    return {-std::int64_t{call.priority}, id};
  }
  void abort_here() noexcept;
  void check_open() const;
  bool is_full() const noexcept;
  void began();
  void ended();
  std::shared_ptr<MapCore> begin_map(MapTask, MapOptions, MapCore::Source);
  void complete_later(std::unique_ptr<LateAnswer>) noexcept;
  void take_places(std::uint64_t id, PoolCall&);
  void enqueue(std::uint64_t id, PoolCall&) noexcept;
  void dequeue(std::uint64_t id, PoolCall&) noexcept;
  void call_answered(PoolWorker&, std::uint64_t id, Reader*, const Error*);
  bool again(std::uint64_t id, PoolCall&, const Error&);
  void fail_waiting(const Error&);
  void check_drained() noexcept;
  void give_up_waiting(std::uint64_t id, const Error&);

  // ---- the choice of a child (pool_schedule.cpp) ----
  void pump();
  void pump_now();
  void pump_again() noexcept;
  void retry() override;
  Next next_work();
  PoolWorker* choose(Next) noexcept;
  bool accepts(const PoolWorker&, Next, std::int64_t now) const noexcept;
  std::size_t call_depth() const noexcept;
  std::int64_t slow_after() const noexcept;
  std::size_t allowance(const PoolWorker&) const noexcept;
  bool send_call(PoolWorker&);
  bool send_chunk(PoolWorker&);
  bool must_wait_for_turn();
  void on_pull_turn();
  void pull();
  void sent(PoolWorker&, const PoolWorker::Sent&, Writer& argument, std::int64_t deadline);
  void unsend(const PoolWorker::Sent&) noexcept;
  void take_back(PoolWorker&, std::int64_t below);
  std::uint64_t keep_chunk(Chunk&);
  void return_chunk(std::uint64_t id) noexcept;
  void fill(PoolWorker&);
  void fill_now(PoolWorker&);
  void balance();
  void make_way(int priority);
  void give_up_chunks(const MapCore&) noexcept;
  void give_up_chunk(PoolWorker&, const PoolWorker::Sent&);
  void record_run(PoolWorker&, const PoolWorker::Sent&, std::int64_t now) noexcept;
  void set_idle(PoolWorker&);
  void set_busy(PoolWorker&) noexcept;

  // ---- children ----
  bool work_waits() const noexcept;
  std::size_t active() const noexcept;
  std::size_t demand() const noexcept;
  void start_wanted();
  void reserve_worker();
  bool start_one(PoolWorker* replaced);
  void start_failed(const Error&);
  bool proven() const noexcept;
  void after_ends();
  void after_end(const std::shared_ptr<PoolWorker>&, const Error&);
  void check_worn(PoolWorker&, std::int64_t now);
  void check_worn_now(PoolWorker&, std::int64_t now);
  void check_memory(PoolWorker&, std::int64_t now);
  void check_cpu(PoolWorker&);
  void replace(PoolWorker&);
  void retire(PoolWorker&);
  void take_over(PoolWorker&);
  void wake_when_old(const PoolWorker&) noexcept;
  void end_idle(std::int64_t now);
  void end_if_closed();
  void end_stopping();
  void wake_at(std::int64_t) noexcept;
  void on_clock();
  void do_what_is_due(std::int64_t now);
  void on_loop_destroyed() noexcept override;
  void forget_work() noexcept;
  std::vector<std::shared_ptr<PoolWorker>> take_workers() noexcept;

  // ---- replacement ----
  bool on_trial() const noexcept { return replacement_ && !replacement_->adopted; }
  void advance_replacement();
  void start_trial();
  void trial_failed(const Error&);
  void adopt(PoolWorker& trial);
  bool may_start_successor(const PoolWorker&) const noexcept;
  void end_replacement(const Result<void>&);
  void roll(std::int64_t now);
  void end_roll(const Result<void>&);

  // ---- events ----
  struct OnceCallback {
    Callback<void(Result<void>)> callback;
    Result<void> result{};
  };
  using OnceCallbacks = std::vector<OnceCallback>;
  void add(OnceCallbacks&, Callback<void(Result<void>)>);
  void call_due(std::size_t count);
  void answer_dropped_calls();
  void leave_if_done() noexcept;
  std::size_t least_ready() const noexcept;
  bool is_ready() const noexcept;
  bool is_over() const noexcept;
  void check_ready();
  void call_later(OnceCallbacks&, const Result<void>&) noexcept;
  void update_hold() noexcept;
  void report(const PoolWorker&, WorkerEvent::Kind);
  void report_end(const PoolWorker&, const ExitStatus&, const Error&, bool expected);
  void report_not_started(const PoolWorker&, const Error&);

  std::shared_ptr<Loop> loop_;
  PoolOptions options_;
  PoolPatterns patterns_;
  // While children with other options are replaced, the smaller one.
  std::size_t max_message_;
  std::unique_ptr<Replacement> replacement_;
  bool rolling_ = false;  // some children are outdated, and are replaced
  Stage stage_ = Stage::open;
  PoolCounts counts_;

  std::unordered_map<std::uint64_t, PoolCall> calls_;
  PoolQueue queue_;
  std::size_t queue_bytes_ = 0;
  PoolDeadlines deadlines_;  // of calls that wait
  std::uint64_t next_id_ = 1;
  std::size_t pending_ = 0;  // calls and maps
  std::size_t idle_streams_ = 0;
  bool holds_ = false;    // the loop
  bool refused_ = false;  // since the last on_drain
  CallbackSlot<void()> drain_;
  CallbackSlot<void(const WorkerEvent&)> on_worker_;
  OnceCallbacks on_ready_;
  OnceCallbacks on_replaced_;
  OnceCallbacks on_closed_;
  OnceCallbacks due_;  // with room for all of these

  std::vector<std::shared_ptr<MapCore>> maps_;
  std::size_t map_turn_ = 0;
  std::unordered_map<std::uint64_t, Chunk> chunks_;  // that were sent to children
  unsigned calls_in_a_row_ = 0;
  Event pull_turn_;  // the next pull from a range that may wait for input
  bool pull_due_ = false;
  bool pulls_ = false;

  std::vector<std::shared_ptr<PoolWorker>> workers_;  // in the order of their start
  std::vector<PoolWorker*> idle_;                     // in the order in which they became idle
  std::size_t sent_items_ = 0;
  std::map<int, std::size_t> sent_priorities_;
  double run_ns_ = 0;       // of a call; 0: not known
  double longest_cpu_ = 0;  // processor time of a call or chunk, in seconds, as far as is known
  bool pump_deferred_ = false;
  bool pump_failed_ = false;                          // for lack of memory: it is tried again
  std::vector<std::shared_ptr<MapCore>> ended_maps_;  // with room for all: finish() is to be called
  std::shared_ptr<PoolCore> self_;  // until the calls of a dropped pool are answered

  unsigned failed_starts_ = 0;  // in a row
  std::int64_t start_at_ = 0;   // no start before this time
  std::int64_t failed_at_ = 0;  // the time of the last failed start
  std::optional<Error> unhealthy_;
  std::size_t dead_ = 0;  // still to be replaced

  Event clock_;
  std::int64_t clock_at_ = no_deadline;
  std::int64_t balance_at_ = no_deadline;
  std::int64_t stop_at_ = no_deadline;
};

// Options with the defaults of this machine, without the snapshots, which need not live for long.
// Fails: std::logic_error, Error{refused}.
PoolOptions completed(const PoolOptions&);
std::vector<std::shared_ptr<Replicas>> snapshots_of(const PoolOptions&,
                                                    const std::shared_ptr<Loop>&);
// After so many failed starts in a row: the time of the next one, and the error of the pool.
std::int64_t time_after(std::int64_t now, unsigned failed_starts) noexcept;
Error unhealthy_after(unsigned failed_starts, const Error& last);

}  // namespace evparallel::detail
