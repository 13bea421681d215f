// supervise.hpp - processes that are kept alive: restarts, a rolling restart, a drain.
// Licence: see COPYING.  Manual: evparallel_supervise(3).
#pragma once

#include <evparallel/options.hpp>
#include <evparallel/snapshot.hpp>
#include <evparallel/task.hpp>

#include <optional>
#include <vector>

namespace evparallel {

// Which ends of a child are followed by another child in its place.  A child that never existed is
// tried again in any case.
enum class Restart {
  always,      // every end
  on_failure,  // every end but an exit with status 0
  never,       // none
};

// An aggregate: set what you need, by name.
struct SuperviseOptions {
  Options child{};  // how each child is made; `deadline` is for its whole life
  Restart restart = Restart::always;
  // A child that has lived for `stable_after` is restarted at once.  If the children of a place end
  // sooner, one after the other, there is a pause before each of them: first_pause, then twice that
  // and so on, up to longest_pause.
  std::chrono::milliseconds first_pause{100};
  std::chrono::milliseconds longest_pause{10000};
  std::chrono::milliseconds stable_after{10000};
  // If a place needs more restarts than this within restart_window, the supervisor gives up: it ends
  // all children, and on_failed receives Error{unhealthy}.  restart_window 0: no limit.
  unsigned max_restarts = 10;
  std::chrono::milliseconds restart_window{60000};
  // The time between SIGTERM and SIGKILL for a child that is replaced, is one too many, or is ended
  // by close().  None: child.grace.
  std::optional<std::chrono::milliseconds> grace{};
  // The number of places that restart() replaces at the same time.  0: all of them.
  unsigned restarts_at_once = 1;
  // Of restart(): the old child has ended before the new one is started.  For children that use a
  // resource of their place that only one process can have.
  bool stop_first = false;
};

namespace detail {

// A Supervisor, independent of its function.  Its functions fail with std::logic_error in another
// thread than that of its loop, but for abandon().
class SupervisorInterface {
public:
  virtual std::vector<pid_t> pids() const = 0;
  virtual unsigned running() const = 0;
  virtual void restart() = 0;
  virtual void resize(unsigned n) = 0;
  virtual void close() = 0;
  virtual void shutdown(std::chrono::milliseconds grace) = 0;
  virtual void abandon() noexcept = 0;  // its handle is gone.  Any thread
  virtual void set_on_start(Callback<void(unsigned, pid_t)>) = 0;
  virtual void set_on_exit(Callback<void(unsigned, const ExitStatus&)>) = 0;
  virtual void set_on_failed(Callback<void(const Error&)>) = 0;
  virtual void set_on_closed(Callback<void()>) = 0;

protected:
  ~SupervisorInterface() = default;
};

EVPARALLEL_API std::shared_ptr<SupervisorInterface> start_supervisor(Reactor&, Task, unsigned n,
                                                                     const SuperviseOptions&);

template <class R, class Parameters>
struct Service {
  static_assert(
      std::is_void_v<R>,
      "evparallel: a supervised function returns nothing; to end with another status than "
      "0, it calls exit(status)");
  static_assert(!std::is_void_v<R>,
                "evparallel: a supervised function must be void(), or void(unsigned) with the "
                "index of its place; bind other arguments with bind(f, args...)");
};
template <>
struct Service<void, Types<>> {
  static constexpr bool takes_index = false;
};
template <>
struct Service<void, Types<unsigned>> {
  static constexpr bool takes_index = true;
};

template <class F>
using service_of = Service<typename Signature<F>::result, typename Signature<F>::parameters>;

// The index of the place follows the callable.
template <class F>
void service_entry(ChildInterface& child, Reader& callable) {
  F f = CallableCodec<F>::deserialize(callable);
  unsigned index;
  callable.read(&index, sizeof index);
  child.begin_service();
  if constexpr (service_of<F>::takes_index)
    call_task(f, index);
  else
    call_task(f);
}

}  // namespace detail

// The handle of the children; it holds Reactor::run() until it is closed.  Move-only: dropping it
// ends the children as dropping a Process does: each gets Options::linger, then SIGTERM, and the
// grace time later SIGKILL.  May outlive its Reactor and does nothing then.
//
// Callbacks are called from the loop, and may drop the Supervisor or call its functions.
class Supervisor {
public:
  Supervisor() noexcept = default;
  explicit Supervisor(std::shared_ptr<detail::SupervisorInterface> core) noexcept
      : core_(std::move(core)) {}
  Supervisor(Supervisor&&) noexcept = default;
  Supervisor& operator=(Supervisor&& other) noexcept {
    if (this != &other) {
      abandon();
      core_ = std::move(other.core_);
    }
    return *this;
  }
  ~Supervisor() { abandon(); }

  // The running child of each place; 0: none runs at the moment.
  std::vector<pid_t> pids() const { return core_ ? core_->pids() : std::vector<pid_t>{}; }
  // The number of places with a running child: one that has begun the function.
  unsigned running() const { return core_ ? core_->running() : 0; }

  // Replaces each child by a new one, place by place: the new one runs before the old one gets
  // SIGTERM.  If such a restart is under way, it also replaces the children that it has started.
  // Does nothing after close().
  void restart() { core_->restart(); }
  // Changes the number of places: adds some, or ends the children of the last ones.  Does nothing
  // after close().
  // Fails: std::logic_error for 0, and above 4096.
  void resize(unsigned n) { core_->resize(n); }

  // Starts no more children, and sends SIGTERM to all; those that have not ended after the grace
  // time are killed.
  void close() { core_->close(); }
  // The same with this grace time; also after close().
  void shutdown(std::chrono::milliseconds grace) { core_->shutdown(grace); }

  // A child has begun the function.
  void on_start(Callback<void(unsigned index, pid_t)> callback) {
    core_->set_on_start(std::move(callback));
  }
  // A child has ended, whatever the reason; called before it is decided whether another one is
  // started.  Cause::not_started if there never was one.
  void on_exit(Callback<void(unsigned index, const ExitStatus&)> callback) {
    core_->set_on_exit(std::move(callback));
  }
  // The supervisor gives up.  Without this callback the error leaves Reactor::run().
  void on_failed(Callback<void(const Error&)> callback) {
    core_->set_on_failed(std::move(callback));
  }
  // The last callback: all children have ended, and no more are started.
  void on_closed(Callback<void()> callback) { core_->set_on_closed(std::move(callback)); }

  explicit operator bool() const noexcept { return core_ != nullptr; }

private:
  void abandon() noexcept {
    if (core_) core_->abandon();
    core_.reset();
  }
  std::shared_ptr<detail::SupervisorInterface> core_;
};

// Keeps n children alive.  Each runs f, which is void(), or void(unsigned) with the index of its
// place, 0 to n - 1; a child that replaces another one has its index.  A child ends when f returns.
// SIGTERM asks a child to end; f may catch it, as with Reactor::on_signal() of this_reactor().
// Fails: Error{no_snapshot}; std::logic_error for a callable that cannot be sent, if n is 0 or above
// 4096, and for a negative time.
template <class F>
[[nodiscard]] Supervisor supervise(Reactor& reactor, F f, unsigned n,
                                   const SuperviseOptions& options = {}) {
  return Supervisor(detail::start_supervisor(
      reactor, detail::make_task(f, &detail::service_entry<F>, false), n, options));
}

}  // namespace evparallel
