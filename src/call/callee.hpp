// callee.hpp - one child that answers calls: its calls, their deadlines, and their cancellation.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "spawn/child_handle.hpp"
#include "spawn/replicas.hpp"
#include "call/pending_calls.hpp"

#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace evparallel::detail {

// Everything that is needed to make a child.  Remotes with equal specs share one object.
struct ChildSpec {
  std::shared_ptr<Replicas> replicas;
  std::shared_ptr<const Task> task;
  std::shared_ptr<const OwnedOptions> options;
};

// The deadline of a call; 0: none.  Fails: std::logic_error for a negative one.
std::chrono::milliseconds deadline_of(const CallOptions&, const Options&);

class Callee;

// The end of a call that was given up, in memory that is taken before anything is changed.
struct LateAnswer {
  Answer answer;
  Error error;
};

// The object that makes the calls and owns the callee.
class CalleeOwner {
public:
  virtual const std::shared_ptr<Loop>& loop() const noexcept = 0;
  virtual const ChildSpec& spec() const noexcept = 0;
  virtual void on_started() {}  // the fork was reported: pid() is known
  virtual void on_ready() {}    // the child has said so, by a value of call 0
  virtual void on_answer() {}   // the callback of a call is about to be called
  // A call was given up: its callback has to be called with the error, later, from the loop.
  // Requires: Loop::reserve_deferred().
  virtual void complete_later(std::unique_ptr<LateAnswer>) noexcept = 0;
  // The child has finished a call that was given up.
  virtual void on_abandoned_call_done(std::uint64_t /*id*/) {}
  // Takes the memory that on_ended() needs.  Fails: std::bad_alloc; then it is called again.
  virtual void prepare_for_end() {}
  // The last callback.  The calls that were not answered are taken by Callee::take_unanswered().
  virtual void on_ended(Callee&, const ExitStatus&, const Error&) = 0;

protected:
  ~CalleeOwner() = default;
};

// A call of a child that has ended.
struct UnansweredCall {
  KeptCall kept;
  Delivery delivery;
  bool answered_in_part;
};
// The error of such a call, when its child has ended with `end`.
Error error_of(const UnansweredCall&, const Error& end) noexcept;

class Callee final : public ChildObserver {
public:
  explicit Callee(CalleeOwner&);

  // Asks for the child.  Fails: as ChildHandle::spawn().
  void spawn();
  // True if the child accepts calls.
  bool usable() const noexcept { return handle_ && handle_->pipe()->usable() && !task_error_; }
  void flush() {
    if (handle_) handle_->pipe()->flush_now();
  }
  // The call whose answer has come in part; 0: there is none.
  std::uint64_t answer_under_way() const noexcept {
    return handle_ ? handle_->pipe()->id_under_way() : 0;
  }
  pid_t pid() const noexcept { return handle_ ? handle_->pid() : 0; }
  const ChildHandle& handle() const noexcept { return *handle_; }

  // ---- calls (callee.cpp) ----
  // Whether a call can be made again: its argument is copied, unless it is short and stays with the
  // caller.
  enum class Keep : bool { nothing, argument };
  // Sends a call; the id is above all earlier ones.
  // Fails: Error{too_large}, std::bad_alloc, and the call was not taken; so does defer().
  void send(std::uint64_t id, PendingCall&, Writer& argument, Keep);
  // Takes a call that is not sent: it is with the unanswered ones when the child has ended.
  void defer(std::uint64_t id, PendingCall&, Writer& argument, Keep);
  bool has(std::uint64_t id) noexcept { return calls_.find(id) != nullptr; }
  // How far a call of this child has got.
  Delivery delivery(std::uint64_t id, const PendingCall& call) const noexcept {
    return call.held ? Delivery::not_sent : handle_->delivery(id, call.offset);
  }
  // The task itself has failed.
  bool task_has_failed() const noexcept { return task_error_ != nullptr; }

  // ---- calls that are given up (callee_cancel.cpp) ----
  // Fail: std::bad_alloc, and nothing has changed.
  void cancel(std::uint64_t id);
  void set_deadline(std::uint64_t id, std::chrono::nanoseconds);
  // Takes back a call that the child has not begun and will never begin, without a callback.
  // Returns false if it has begun, or if that cannot be known.
  bool take_back(std::uint64_t id);
  // The call was given up, and the child may still run it.
  bool is_abandoned(std::uint64_t id) const noexcept;
  // The snapshot was asked to kill the child if it is still running such a call.
  bool kill_requested() const noexcept {
    return abandoned_.peek() && abandoned_.peek()->kill_requested;
  }

  // ---- ends (callee.cpp) ----
  // Sends no more calls; the child ends when it has answered.
  void close();
  // The same, and the snapshot makes sure that the child ends in time.
  void shutdown();
  // Sends SIGTERM to the child, and SIGKILL `grace` later.
  void terminate(std::chrono::milliseconds grace);
  // Ends the child, with no further callback of its owner.  Its calls are left.
  void abort() noexcept;
  // Requires: the child has ended.
  // Fails: std::bad_alloc, and the calls are left.
  std::vector<UnansweredCall> take_unanswered(const ExitStatus&, const Error&);
  std::size_t count() const noexcept { return calls_.count(); }
  // Removes one of the calls that are left, without its argument.
  bool any_left() const noexcept { return count() > 0; }
  UnansweredCall take_left() noexcept;

private:
  struct AbandonedCall {
    CancelEntry* cancel_entry;
    Cause cause;  // needed if it was not known whether the child had begun the call
  };
  // Calls that were given up and that the child may still reach: their cancel entries stay.
  struct Abandoned {
    std::unordered_map<std::uint64_t, AbandonedCall> calls;
    std::uint64_t pings = 0;
    bool kill_requested = false;
  };
  struct Deadlines {
    std::set<std::pair<std::int64_t, std::uint64_t>> soonest;  // with the id of the call
    Event clock;
    std::int64_t clock_at = no_deadline;
  };

  void on_started(pid_t) override;
  void on_task_error(const Error&) override;
  void on_torn(std::uint64_t call) override { torn_ = call; }
  void on_frame(Frame&) override;
  void prepare_for_end() override { owner_.prepare_for_end(); }
  void on_ended(const ExitStatus&, const Error&) override;

  void add(std::uint64_t id, PendingCall&, const Writer& argument, Keep);
  PendingCall take(std::uint64_t id) noexcept;
  std::uint64_t answered_in_part(const std::vector<UnansweredCall>&) const noexcept;

  void give_up(std::uint64_t id, const Error&, Cause);
  void kill_if_still_running(std::uint64_t id, Cause);
  void kill_if_not_started(Cause);
  void publish_deadline(std::uint64_t id, PendingCall&, std::int64_t deadline);
  void forget_abandoned(std::uint64_t id);
  void erase_cancel_entries() noexcept;
  void erase(CancelEntry*) noexcept;
  void keep_deadline(std::uint64_t id, PendingCall&, std::int64_t at);
  void forget_deadline(std::uint64_t id, PendingCall&) noexcept;
  void set_clock();
  void stop_clock() noexcept;
  void on_clock();
  void give_up_late_calls();

  CalleeOwner& owner_;
  std::shared_ptr<ChildHandle> handle_;
  PendingCalls calls_;
  // Without memory it is one that is never released.
  struct ReleaseError {
    void operator()(const Error*) const noexcept;
  };
  std::unique_ptr<const Error, ReleaseError> task_error_;
  Lazy<Abandoned> abandoned_;
  Lazy<Deadlines> deadlines_;
  // The child died while it wrote the answer to this call; 0: the call is not known.
  static constexpr std::uint64_t not_torn = UINT64_MAX;
  std::uint64_t torn_ = not_torn;
  bool closed_ = false;
  bool ended_ = false;
  bool aborted_ = false;
};

// The child was ended because of one of its calls: the other calls must not be affected.
inline bool is_ended_for_a_call(const ExitStatus& status) noexcept {
  return status.cause == Cause::cancelled || status.cause == Cause::deadline;
}

}  // namespace evparallel::detail
