// child_handle.hpp - the parent's hold on one child: its pipe, its pid, and how it ended.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "pipe/pipe_core.hpp"
#include "spawn/child_environment.hpp"
#include "spawn/snapshot_process.hpp"

#include <evparallel/options.hpp>
#include <evparallel/task.hpp>

namespace evparallel {

// What a Process or a Remote hears of its child.
class ChildObserver {
public:
  virtual void on_started(pid_t) {}
  virtual void on_task_error(const Error&) {}
  virtual void on_torn(std::uint64_t /*call*/) {}
  virtual void on_frame(Frame&) {}
  // The last one, once: all messages were delivered.  `error` says it for those who wait for an
  // answer.
  virtual void on_ended(const ExitStatus&, const Error& error) = 0;

protected:
  ~ChildObserver() = default;
};

// Fails: std::logic_error, which names the member that is negative.
const Options& checked(const Options&);

// A copy for as long as children are made by it, which is shared by all of them; the snapshot need
// not live so long.
struct OwnedOptions : Options {
  // Fails: as checked() and Surroundings.
  explicit OwnedOptions(const Options& options) : Options(checked(options)), environment(options) {
    snapshot = nullptr;
  }
  ChildEnvironment environment;
};
std::shared_ptr<const OwnedOptions> kept(const Options&);
// Whether children made by the one are as those made by the other would be.  What cannot be compared
// is not alike: a function, or a descriptor, whose number may be another file's by now.
bool same_spec(const Options&, const Options&);

// Made with spawn(); the entry and the pipe hear of it as long as it lives.
class ChildHandle final : public SpawnObserver,
                          public PipeObserver,
                          public std::enable_shared_from_this<ChildHandle> {
public:
  // Options::deadline is a process's own, or each call's of a remote function.
  enum class Use { process, remote_function };
  // Asks for a child and writes its task, or leaves that to the first call; nothing is waited for.
  // Fails: Error{spawn_failed} (no descriptors).
  static std::shared_ptr<ChildHandle> spawn(const std::shared_ptr<SnapshotProcess>&,
                                            const std::shared_ptr<Loop>&, const detail::Task&,
                                            std::shared_ptr<const OwnedOptions>, Use,
                                            ChildObserver*);
  ~ChildHandle();

  const std::shared_ptr<detail::PipeCore>& pipe() const noexcept { return pipe_; }
  pid_t pid() const noexcept { return pid_; }
  bool ended() const noexcept { return end() != nullptr; }
  void kill(int signum);
  void terminate(std::chrono::milliseconds grace);
  // Ends it if it is at `call` still when the clock runs out; for call 0, if it has not answered
  // the ping by then.
  void kill_if_still_running(const SnapshotProcess::Clock&, std::uint64_t call, std::uint64_t ping);
  // How far a call has got whose frame began at `offset` of the pipe's bytes.
  Delivery delivery(std::uint64_t call, std::uint64_t offset) const noexcept;
  // Whether that can be known: not before the snapshot has told of the fork.
  bool slot_known() const noexcept { return slot_ != no_slot; }
  std::uint64_t owner_id() const noexcept { return owner_id_; }
  // It was forked ahead, and as far as is known it has not even taken its task.
  bool unused() const noexcept;
  // An error as it came from the child, with names for the addresses of its backtrace.
  Error explained(const Error&) const;

  // Its time to end by itself begins.
  void release();
  // Its owner is gone.  The pipe is closed, in the background where something is still to be
  // written; the snapshot sees to it that the child ends in time.
  void drop();
  // The same for an owner that waits for nothing.
  void cut();

private:
  ChildHandle(std::shared_ptr<SnapshotProcess>, std::shared_ptr<const OwnedOptions>,
              ChildObserver*);
  void write_task(const detail::Task&, std::int64_t deadline, std::uint64_t seed,
                  detail::PipeCore::FlushPolicy);
  void conclude();
  std::uint64_t last_begun() const noexcept;
  std::shared_ptr<const CrashReport> crash_report() const;
  void let_go();

  void on_spawned(pid_t, std::uint32_t slot) override;
  void on_outcome(const SpawnOutcome&) override;
  Error on_task_error(const Error&) override;
  void on_torn(std::uint64_t call) override;
  void on_input() override;
  void on_frame(Frame&) override;
  void on_broken() override;
  void on_closed() override;
  void on_over() override;

  // What was known when the last word came.
  struct End {
    ExitStatus status{};
    std::optional<Error> error;
    std::uint64_t last_begun = 0;
    bool unused = false;
  };
  const End* end() const noexcept { return end_.peek(); }

  std::shared_ptr<SnapshotProcess> entry_;
  std::shared_ptr<const OwnedOptions> options_;
  ChildObserver* owner_;
  std::uint64_t id_ = 0;
  pid_t pid_ = 0;
  std::uint32_t slot_ = no_slot;
  std::uint64_t owner_id_ = CancelTable::new_owner();
  Lazy<End> end_;
  std::shared_ptr<detail::PipeCore> pipe_;
  std::shared_ptr<CapturedOutput> output_;  // where something is captured
};

}  // namespace evparallel
