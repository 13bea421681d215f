// remote_core.hpp - the implementation of a Remote: its child, its calls, and its deadlines.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "spawn/child_handle.hpp"
#include "spawn/replicas.hpp"
#include "call/pending_calls.hpp"

#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace evparallel {

namespace detail {

class RemoteCore;

// The object that a Call refers to.
class CallTarget {
public:
  virtual void cancel(std::uint64_t id) = 0;
  virtual void set_deadline(std::uint64_t id, std::chrono::nanoseconds) = 0;

protected:
  ~CallTarget() = default;
};

// Everything that is needed to make a child.  Remotes with equal specs share one object.
struct ChildSpec {
  std::shared_ptr<Replicas> replicas;
  std::shared_ptr<const Task> task;
  std::shared_ptr<const OwnedOptions> options;
};

// One child of a Remote with the calls that were sent to it.  A Remote may have a dying child and a
// working one at the same time.
class RemoteChild final : public ChildObserver {
public:
  explicit RemoteChild(RemoteCore&) noexcept;
  void on_started(pid_t) override;
  // An error of the task itself is passed to all calls, instead of the exit status that follows.
  void on_task_error(const Error& error) override {
    task_error = std::make_unique<const Error>(error);
  }
  void on_torn(std::uint64_t call) override { torn = call; }
  void on_frame(Frame&) override;
  void on_ended(const ExitStatus&, const Error&) override;

  // The delivery of a call of this child.
  Delivery delivery(std::uint64_t id, const PendingCall& call) const noexcept {
    return call.held ? Delivery::not_sent : handle->delivery(id, call.offset);
  }

  std::shared_ptr<ChildHandle> handle;
  PendingCalls calls;
  std::unique_ptr<const Error> task_error;  // the task itself failed
  // The child died while it wrote the answer to this call; 0: the call is not known.
  static constexpr std::uint64_t not_torn = UINT64_MAX;
  std::uint64_t torn = not_torn;
  // Calls that were given up and that the child may still reach: their cancel entries stay.  The
  // cause is needed if it was not known whether the child had begun the call.
  struct AbandonedCall {
    CancelEntry* note;
    Cause cause;
  };
  struct GivenUp {
    std::unordered_map<std::uint64_t, AbandonedCall> calls;
    std::uint64_t pings = 0;
    bool kill_requested = false;  // the snapshot was asked to kill the child if it is still running
  };
  Lazy<GivenUp> given_up;
  bool kill_requested() const noexcept {
    return given_up.peek() && given_up.peek()->kill_requested;
  }

private:
  RemoteCore& remote_;
};

// With hooks for a derived class that replaces the child by making another object:
// ChildTable::single.  Then no call is made again, and none is sent to a second child.
class RemoteCore : public LoopObserver,
                   public CallTarget,
                   public std::enable_shared_from_this<RemoteCore> {
public:
  enum class ChildTable : bool { several, single };
  RemoteCore(const std::shared_ptr<Loop>&, std::shared_ptr<const ChildSpec>,
             ChildTable = ChildTable::several);
  ~RemoteCore() override { drop(); }

  // ---- the path of a call ----
  void spawn();
  // The memory of a short `argument` stays with the caller.
  std::uint64_t call(Writer& argument, Answer&&);
  std::uint64_t call(Writer& argument, Answer&&, std::int64_t deadline);
  std::uint64_t refuse(const Error&, Answer);
  void answered(RemoteChild&, Frame&);

  // ---- calls that were given up (remote_cancel.cpp) ----
  void cancel(std::uint64_t id) override;
  void set_deadline(std::uint64_t id, std::chrono::nanoseconds) override;
  // Takes back a call that the child has not begun and will never begin, without a callback.
  // Returns false if it has begun, or if that cannot be known.
  bool take_back(std::uint64_t id);
  // The call was given up, and the child may still run it.
  bool is_given_up(std::uint64_t id) const noexcept;
  void child_started(RemoteChild&);

  // ---- ends ----
  void child_ended(RemoteChild&, const ExitStatus&, const Error&);
  void close();
  // The same, and the snapshot makes sure that the child ends in time.
  void close_in_time();
  void drop() noexcept;

  // Sends SIGTERM to its child, and SIGKILL `grace` later.
  void terminate(std::chrono::milliseconds grace) noexcept {
    if (current_) current_->handle->terminate(grace);
  }

  // True if its child accepts calls.
  bool usable() const noexcept { return current_ && current_->handle->pipe()->usable(); }

  Loop& loop() const noexcept { return *loop_; }
  pid_t pid() const noexcept { return current_ ? current_->handle->pid() : 0; }
  std::size_t pending() const noexcept { return pending_; }

private:
  virtual void on_child_ready() {}  // the child has said so, by a value of call 0
  // Called before the callbacks of its calls.
  virtual void on_child_ended(const ExitStatus&, const Error&) {}
  // The child has finished a call that was given up.
  virtual void on_given_up_answered(std::uint64_t /*id*/) {}

  bool single() const noexcept { return children_ == ChildTable::single; }
  void check_open() const;
  void place(std::uint64_t id, PendingCall&, Writer& argument);
  void began();
  void ended();
  void complete_later(const Error&, Answer);
  void fail_later(const Error&, Answer);

  RemoteChild* child_of(std::uint64_t id) noexcept;
  void give_up(std::uint64_t id, const Error&, Cause);
  void kill_if_still_running(RemoteChild&, std::uint64_t id, Cause);
  void tell(RemoteChild&, std::uint64_t id, PendingCall&, std::int64_t deadline);
  void keep_deadline(std::uint64_t id, PendingCall&, std::int64_t at);
  void forget_deadline(std::uint64_t id, PendingCall&) noexcept;
  void forget_given_up(RemoteChild&, std::uint64_t id);
  void set_clock();
  void on_clock();

  bool may_repeat(const RemoteChild&, const PendingCall&, Delivery,
                  const ExitStatus&) const noexcept;
  std::uint64_t answered_in_part(const RemoteChild&, const std::vector<KeptCall>&) const noexcept;
  void repeat(std::vector<KeptCall>);
  void stop_clock() noexcept;
  std::vector<std::unique_ptr<RemoteChild>> take_all() noexcept;
  void drop_child(RemoteChild&) noexcept;
  void abort_silently(RemoteChild&) noexcept;
  void erase_cancel_entries(RemoteChild&) noexcept;
  void erase(CancelEntry*) noexcept;
  std::unique_ptr<RemoteChild> take(RemoteChild&) noexcept;
  void on_loop_destroyed() noexcept override;

  struct Deadlines {
    std::set<std::pair<std::int64_t, std::uint64_t>> soonest;  // with the id of the call
    Event clock;
    std::int64_t clock_at = no_deadline;
  };

  std::shared_ptr<Loop> loop_;
  std::shared_ptr<const ChildSpec> pattern_;
  std::unique_ptr<RemoteChild> current_;
  Lazy<std::vector<std::unique_ptr<RemoteChild>>> dying_;
  Lazy<Deadlines> deadlines_;
  std::uint64_t next_id_ = 1;
  std::size_t pending_ = 0;
  ChildTable children_;
  bool closed_ = false;
  bool dropped_ = false;
};

}  // namespace detail

}  // namespace evparallel
