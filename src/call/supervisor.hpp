// supervisor.hpp - the implementation of a Supervisor: its places, and the children in them.
// Runs in: parent.  Licence: see COPYING.
#pragma once

#include "spawn/child_handle.hpp"
#include "spawn/replicas.hpp"

#include <evparallel/supervise.hpp>

#include <deque>

namespace evparallel::detail {

class SupervisorCore;

// One child, from the request for it to its end.
class SupervisedChild final : public ChildObserver,
                              public std::enable_shared_from_this<SupervisedChild> {
public:
  // ending: the supervisor has asked it to end.
  enum class Stage { starting, running, ending, ended };

  SupervisedChild(SupervisorCore& core, unsigned of_place, std::uint64_t of_restart) noexcept
      : index(of_place), generation(of_restart), core_(&core) {}

  // Fails: Error{spawn_failed} (no descriptors); std::logic_error if another reactor uses the
  // snapshot.
  void start(Replicas&, const std::shared_ptr<Loop>&, Task, std::shared_ptr<const OwnedOptions>);
  void end(std::chrono::milliseconds grace);
  // The supervisor gets no more callbacks of it.  detach: it gets its linger time, abort: the loop is
  // being destroyed.
  void detach() noexcept;
  void abort() noexcept;

  pid_t pid() const noexcept { return handle_ ? handle_->pid() : 0; }

  const unsigned index;
  const std::uint64_t generation;  // of the restart() before its start
  Stage stage = Stage::starting;
  std::int64_t running_since = 0;

private:
  void check_running();
  void on_started(pid_t) override { check_running(); }
  void on_frame(Frame&) override;
  void on_task_error(const Error& error) override { task_error_ = error; }
  void on_ended(const ExitStatus&, const Error&) override;

  SupervisorCore* core_;
  std::shared_ptr<ChildHandle> handle_;
  bool has_begun_ = false;  // it has reported that its function begins
  std::optional<Error> task_error_;
};

class SupervisorCore final : public SupervisorInterface,
                             public LoopObserver,
                             public std::enable_shared_from_this<SupervisorCore> {
public:
  SupervisorCore(const std::shared_ptr<Loop>&, Task, unsigned n, const SuperviseOptions&);
  ~SupervisorCore() override { abandon_here(); }
  void begin();

  // ---- interface of the user ----
  std::vector<pid_t> pids() const override;
  unsigned running() const override;
  void restart() override;
  void resize(unsigned n) override;
  void close() override;
  void shutdown(std::chrono::milliseconds grace) override;
  void abandon() noexcept override;
  void set_on_start(Callback<void(unsigned, pid_t)> c) override { set(start_, std::move(c)); }
  void set_on_exit(Callback<void(unsigned, const ExitStatus&)> c) override {
    set(exit_, std::move(c));
  }
  void set_on_failed(Callback<void(const Error&)> c) override { set(failed_, std::move(c)); }
  void set_on_closed(Callback<void()> c) override { set(closed_, std::move(c)); }

  // ---- from a child ----
  void child_running(SupervisedChild&);
  void child_ended(SupervisedChild&, const ExitStatus&, const Error&);

private:
  template <class Slot, class C>
  void set(Slot& slot, C callback) {
    loop_->check_thread();
    slot.set(std::move(callback));
  }

  // over: no child is left, or nobody is interested any more.
  enum class Stage { open, closing, over };
  using Child = std::shared_ptr<SupervisedChild>;

  struct Place {
    Child child{};      // the one that counts; null: none is there yet, or any more
    Child successor{};  // takes the place of `child` once it runs
    Child old{};        // was replaced, and has not ended
    bool replacing = false;
    bool done = false;  // no child is started any more
    std::int64_t start_at = 0;
    unsigned short_lives = 0;             // in a row
    std::deque<std::int64_t> restarts{};  // within the window
  };
  enum class Role { child, successor, other };

  void abandon_here() noexcept;
  bool open() const noexcept { return stage_ == Stage::open && loop_->alive(); }
  Child start_child(unsigned index);
  void request_end(const Child&);
  void pump();
  void pump_later();
  void fill(unsigned index, std::int64_t now);
  void roll(std::int64_t now);
  void replace(unsigned index, std::int64_t now);
  bool has_children_of(unsigned index) const noexcept;
  Role take_out(SupervisedChild&);
  void after_end(const SupervisedChild&, Role, const ExitStatus&, const Error&);
  bool is_followed(const ExitStatus&) const noexcept;
  bool is_hopeless(const Error&) const noexcept;
  void pause(Place&, const SupervisedChild&, std::int64_t now);
  bool exceeds_rate(Place&, std::int64_t now);
  void end_all(std::chrono::milliseconds grace);
  void give_up(const Error&);
  void end_if_over();
  void release_callbacks() noexcept;
  void wake_at(std::int64_t) noexcept;
  void on_clock();
  void on_loop_destroyed() noexcept override;

  std::shared_ptr<Loop> loop_;
  std::shared_ptr<Replicas> replicas_;
  Task task_;
  SuperviseOptions options_;
  std::shared_ptr<const OwnedOptions> child_options_;
  Stage stage_ = Stage::open;
  bool holds_loop_ = false;
  bool pump_deferred_ = false;
  std::uint64_t generation_ = 0;
  std::vector<Place> places_;
  std::vector<Child> children_;  // all that have not ended
  Event clock_;
  std::int64_t clock_at_ = never;
  CallbackSlot<void(unsigned, pid_t)> start_;
  CallbackSlot<void(unsigned, const ExitStatus&)> exit_;
  CallbackSlot<void(const Error&)> failed_;
  CallbackSlot<void()> closed_;
};

}  // namespace evparallel::detail
