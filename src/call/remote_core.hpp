// remote_core.hpp - the implementation of a Remote: its children, and the calls that it repeats.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "call/callee.hpp"

#include <memory>
#include <vector>

namespace evparallel::detail {

// Its calls go to one child.  When that child has ended, those that may be repeated go to the next
// one, so that a dying child and a working one may exist at the same time.
class RemoteCore final : public RemoteInterface,
                         public CalleeOwner,
                         public LoopObserver,
                         public CallTarget,
                         public std::enable_shared_from_this<RemoteCore> {
public:
  RemoteCore(const std::shared_ptr<Loop>&, std::shared_ptr<const ChildSpec>);
  ~RemoteCore() override { abort_here(); }

  void spawn();

  // ---- interface of a Remote and of a Call ----
  DraftBuffer& drafts() override {
    loop_->check_thread();
    return loop_->drafts();
  }
  Call call(Writer& argument, Answer&&, const CallOptions&) override;
  Call refuse(const Error&, Answer) override;
  std::uint64_t next_id() const noexcept override { return next_id_; }
  void cancel(std::uint64_t id) override;
  void set_deadline(std::uint64_t id, std::chrono::nanoseconds) override;
  pid_t pid() const override;
  std::size_t pending() const override;
  void close() override;
  LoopRunner& loop_runner() noexcept override { return *loop_; }
  void abort() noexcept override;

private:
  // ---- interface of its children ----
  const std::shared_ptr<Loop>& loop() const noexcept override { return loop_; }
  const ChildSpec& spec() const noexcept override { return *spec_; }
  void on_answer() override { remove_pending(); }  // first: the callback may throw
  void complete_later(std::unique_ptr<LateAnswer>) noexcept override;
  void on_ended(Callee&, const ExitStatus&, const Error&) override;

  void on_loop_destroyed() noexcept override;
  void retry() override;
  void abort_here() noexcept;
  void check_open() const;
  void dispatch(std::uint64_t id, PendingCall&, Writer& argument);
  bool waits_for_end_of_child() const noexcept;
  void add_pending() noexcept;
  void remove_pending() noexcept;
  void fail_later(const Error&, Answer);
  Callee* child_of(std::uint64_t id) noexcept;
  bool may_repeat(const Callee&, const UnansweredCall&, const ExitStatus&) const noexcept;
  struct Sorted;
  Sorted sort(Callee&, const ExitStatus&, const Error& end) const;
  void repeat(Sorted&);
  void fail_all_of(Callee&);
  void answer_dropped_calls();
  void answer_dropped_call(Callee&);
  std::unique_ptr<Callee> take(Callee&) noexcept;

  std::shared_ptr<Loop> loop_;
  std::shared_ptr<const ChildSpec> spec_;
  std::unique_ptr<Callee> current_;
  Lazy<std::vector<std::unique_ptr<Callee>>> dying_;
  std::uint64_t next_id_ = 1;
  std::size_t pending_ = 0;
  bool repeats_ = false;  // a call may be made again
  bool closed_ = false;
  bool aborted_ = false;
  std::shared_ptr<RemoteCore> self_;  // until the calls of a dropped remote function are answered
};

}  // namespace evparallel::detail
