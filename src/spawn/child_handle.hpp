// child_handle.hpp - the parent's handle of one child: its pipe, its pid, and how it ended.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "pipe/pipe_core.hpp"
#include "spawn/child_environment.hpp"
#include "spawn/snapshot_process.hpp"

#include <evparallel/options.hpp>
#include <evparallel/task.hpp>

namespace evparallel::detail {

// The callbacks of a child to its Process or Remote.
class ChildObserver {
public:
  virtual void on_started(pid_t) {}
  virtual void on_task_error(const Error&) {}
  virtual void on_torn(std::uint64_t /*call*/) {}
  virtual void on_frame(Frame&) {}
  // Takes the memory that on_ended() needs.  Fails: std::bad_alloc; then it is called again.
  virtual void prepare_for_end() {}
  // The last callback, called once, after all messages were delivered.  `error` describes the end
  // for calls that wait for an answer.
  virtual void on_ended(const ExitStatus&, const Error& error) = 0;

protected:
  ~ChildObserver() = default;
};

// Fails: std::logic_error that names the negative member.
const Options& checked(const Options&);

// A copy of Options, shared by all children that are made with it; it does not keep the snapshot.
struct OwnedOptions : Options {
  // Fails: as checked() and ChildEnvironment.
  explicit OwnedOptions(const Options& options) : Options(checked(options)), environment(options) {
    snapshot = nullptr;
  }
  ChildEnvironment environment;
};
std::shared_ptr<const OwnedOptions> kept(const Options&);
// Whether children made with one are the same as children made with the other.  Members that cannot
// be compared count as different: a function, or a descriptor, whose number may belong to another
// file by now.
bool same_spec(const Options&, const Options&);

// Made with spawn().  The SnapshotProcess and the pipe call it while it lives.
class ChildHandle final : public SpawnObserver,
                          public PipeObserver,
                          public std::enable_shared_from_this<ChildHandle> {
public:
  // Options::deadline is that of a process, or of each call of a remote function.
  enum class Use { process, remote_function };
  // Asks for a child and writes its task, or leaves the task to be written with the first call.
  // Does not wait.
  // Fails: Error{spawn_failed} (no descriptors).
  static std::shared_ptr<ChildHandle> spawn(const std::shared_ptr<SnapshotProcess>&,
                                            const std::shared_ptr<Loop>&, const Task&,
                                            std::shared_ptr<const OwnedOptions>, Use,
                                            ChildObserver*);
  ~ChildHandle();

  const std::shared_ptr<PipeCore>& pipe() const noexcept { return pipe_; }
  pid_t pid() const noexcept { return pid_; }
  bool ended() const noexcept { return end() != nullptr; }
  void kill(int signum);
  void terminate(std::chrono::milliseconds grace);
  // Ends the child if it still runs `call` when the timer expires; for call 0, if it has not
  // answered the ping by then.
  void kill_if_still_running(const SnapshotProcess::Clock&, std::uint64_t call, std::uint64_t ping);
  // Ends the child if it is not ready for its first call when the timer expires.
  void kill_if_not_started(const SnapshotProcess::Clock&);
  // How far a call has got whose frame began at `offset` of the bytes of the pipe.
  Delivery delivery(std::uint64_t call, std::uint64_t offset) const noexcept;
  // Whether delivery() can know: not before the snapshot has reported the fork.
  bool slot_known() const noexcept { return slot_ != no_slot; }
  std::uint64_t owner_id() const noexcept { return owner_id_; }
  // True once the child is ready for its first call, as far as is known.
  bool started() const noexcept;
  // True for a spare child that has not taken its task, as far as is known.
  bool unused() const noexcept;
  // An error from the child, with names for the addresses of its backtrace.
  Error explained(const Error&) const noexcept;

  // Starts the time in which the child has to end by itself.
  void shutdown();
  // Releases the observer.  The pipe is closed, in the background if bytes are still to be written;
  // the snapshot makes sure that the child ends in time.
  void detach();
  // The same without waiting for anything to be written.
  void abort();

private:
  ChildHandle(std::shared_ptr<SnapshotProcess>, std::shared_ptr<const OwnedOptions>,
              ChildObserver*);
  void write_task(const Task&, std::int64_t deadline, std::uint64_t seed, PipeCore::FlushPolicy);
  void conclude();
  std::uint64_t last_begun() const noexcept;
  std::shared_ptr<const CrashReport> crash_report() const noexcept;
  bool pass_output_on();
  void detach_observer();

  void on_spawned(pid_t, std::uint32_t slot) override;
  void prepare_for_outcome() override;
  void on_outcome(const SpawnOutcome&) override;
  StartLimit start_limit() const noexcept override {
    return {options_->start_timeout, options_->grace};
  }
  Error on_task_error(const Error&) override;
  void on_torn(std::uint64_t call) override;
  void on_input() override;
  void on_frame(Frame&) override;
  void on_broken() override;
  void on_closed() override;
  void on_over() override;
  void on_retry() override;

  // The state at the time of the spawn outcome.
  struct End {
    ExitStatus status{};
    std::optional<Error> error;
    std::uint64_t last_begun = 0;
    bool known = false;  // false: only its memory is there
    bool unused = false;
    bool concluding = false;  // the output of the child is still to be passed on
  };
  const End* end() const noexcept {
    return end_.peek() && end_.peek()->known ? end_.peek() : nullptr;
  }

  std::shared_ptr<SnapshotProcess> entry_;
  std::shared_ptr<const OwnedOptions> options_;
  ChildObserver* owner_;
  std::uint64_t id_ = 0;
  pid_t pid_ = 0;
  std::uint32_t slot_ = no_slot;
  bool has_sent_ = false;  // something, so that its start is over
  std::uint64_t owner_id_ = CancelTable::new_owner();
  Lazy<End> end_;
  std::shared_ptr<PipeCore> pipe_;
  std::shared_ptr<CapturedOutput> output_;  // null if nothing is captured
};

}  // namespace evparallel::detail
