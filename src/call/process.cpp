// process.cpp - a Process: its callbacks and its lifetime.
// Runs in: parent.  Licence: see COPYING.
#include <evparallel/process.hpp>

#include "base/negative.hpp"
#include "base/no_memory.hpp"
#include "system/failpoint.hpp"
#include "spawn/child_handle.hpp"
#include "spawn/replicas.hpp"
#include "spawn/with_start.hpp"

#include <optional>
#include <vector>

namespace evparallel::detail {

// Lives as long as its handle or, if it is detached, until the child has ended.  While it is open,
// it keeps run() from returning.
class ProcessCore final : public ProcessInterface,
                          public ChildObserver,
                          public LoopObserver,
                          public std::enable_shared_from_this<ProcessCore> {
public:
  explicit ProcessCore(const std::shared_ptr<Loop>& loop) : loop_(loop) {}
  ~ProcessCore() override { end_callbacks(); }

  void start(Replicas& replicas, const Task& task, const Options& options) {
    child_ = ChildHandle::spawn(replicas.next(loop_), loop_, task, kept(options),
                                ChildHandle::Use::process, this);
    register_with(*loop_);
    loop_->hold();
    open_ = true;
  }

  std::shared_ptr<PipeInterface> pipe() override { return child_->pipe(); }
  pid_t pid() const override { return child().pid(); }
  void kill(int signum) override { child().kill(signum); }
  void terminate(std::chrono::milliseconds grace) override {
    refuse_negative("Process::terminate", grace);
    child().terminate(grace);
  }
  void set_on_start(Callback<void(pid_t)> c) override {
    loop_->check_thread();
    start_.set(std::move(c));
  }
  void set_on_exit(Callback<void(const ExitStatus&)> c) override {
    loop_->check_thread();
    exit_.set(std::move(c));
  }
  const ExitStatus* exit_status() const override {
    loop_->check_thread();
    return status_ ? &*status_ : nullptr;
  }
  void wait_for_exit(Callback<void()> c) override {
    loop_->check_thread();
    awaiting_exit_.push_back(std::move(c));
  }

  void detach() override {
    loop_->check_thread();
    if (open_) self_ = shared_from_this();
  }

  void shutdown() noexcept override {
    if (loop_->in_its_thread()) return shutdown_here();
    loop_->call_in_its_thread([self = shared_from_this()] { self->shutdown_here(); });
  }

private:
  ChildHandle& child() const {
    loop_->check_thread();
    return *child_;
  }

  void shutdown_here() noexcept {
    if (!open_) return;
    child_->detach();
    end_callbacks();
    // Coroutines that wait for the status go on without one.
    for (Callback<void()>& one : std::exchange(awaiting_exit_, {}))
      if (loop_->alive()) loop_->defer_or_call(std::move(one));
  }

  void on_started(pid_t pid) override {
    const auto keep = shared_from_this();
    start_(pid);
  }

  void on_ended(const ExitStatus& status, const Error&) override {
    fault_at(Failpoint::ended);
    const auto keep = shared_from_this();
    status_ = copy_of(status);
    end_callbacks();
    loop_->call([&] { exit_(status); });
    exit_.release();
    for (Callback<void()>& one : std::exchange(awaiting_exit_, {})) loop_->call([&] { one(); });
  }

  // The handle may live on for long; the child must not.
  void on_loop_destroyed() noexcept override {
    const auto keep = weak_from_this().lock();
    if (open_) child_->abort();
    end_callbacks();
    // One of these may own the last handle.
    const std::vector<Callback<void()>> never_called = std::move(awaiting_exit_);
  }

  // There will be no more callbacks.
  void end_callbacks() noexcept {
    if (!std::exchange(open_, false)) return;
    if (loop_->alive()) loop_->release();
    unregister();
    start_.release();
    const std::shared_ptr<ProcessCore> last = std::move(self_);
  }

  std::shared_ptr<Loop> loop_;
  std::shared_ptr<ChildHandle> child_;
  CallbackSlot<void(pid_t)> start_;
  CallbackSlot<void(const ExitStatus&)> exit_;
  std::optional<ExitStatus> status_;
  std::vector<Callback<void()>> awaiting_exit_;
  bool open_ = false;
  std::shared_ptr<ProcessCore> self_;  // set if it is detached
};

std::shared_ptr<ProcessInterface> start_process(Reactor& reactor, const Task& task,
                                                const Options& options) {
  fault_at(Failpoint::run);
  reactor.loop()->check_thread();
  auto core = make_on<ProcessCore>(reactor.loop(), reactor.loop());
  Replicas& replicas = *Replicas::choose(options.snapshot, reactor.loop());
  if (options.on_start)
    core->start(replicas, with_start(task, options.on_start), options);
  else
    core->start(replicas, task, options);
  return core;
}

}  // namespace evparallel::detail
