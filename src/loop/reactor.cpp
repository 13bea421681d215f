// reactor.cpp - the public interface of the loop: timers, watches, posts.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/reactor.hpp>

#include "base/negative.hpp"
#include "base/startup_path.hpp"
#include "system/fork.hpp"
#include "system/watchable.hpp"
#include "loop/event_loop.hpp"

#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>

namespace evparallel {

namespace detail {

// A timer or a watch.  While it is active it keeps run() from returning and, if it is detached,
// keeps itself alive.
class LoopHandle final : public EventSource,
                         public LoopObserver,
                         public std::enable_shared_from_this<LoopHandle> {
public:
  using Clock = std::chrono::steady_clock;

  LoopHandle(Loop& loop, Callback<void()> callback) : loop_(loop.shared_from_this()) {
    callback_.set(std::move(callback));
  }
  LoopHandle(Loop& loop, TimerCallback callback) : LoopHandle(loop, std::move(callback.plain)) {
    if (!callback.with_handle) return;
    callback_.set([this, with_handle = std::move(callback.with_handle)]() mutable {
      LentTimer own(*this);
      with_handle(own.timer);
    });
  }
  ~LoopHandle() override { cancel_here(); }

  void start_timer(std::chrono::nanoseconds time, bool repeat) {
    loop_->check_thread();
    loop_->check_at_home();
    event_.set<&LoopHandle::on_timer>(*loop_, -1, 0, this);
    period_ = repeat ? time : std::chrono::nanoseconds::zero();
    const auto now = Clock::now();
    due_ = time < Clock::time_point::max() - now ? now + time : Clock::time_point::max();
    event_.add_in(time);
    activate();
  }

  // epoll(7) refuses a descriptor that is always ready: its event is a timer that is always due.
  void start_watch(int fd, short what) {
    check_watch(fd);
    const int error = why_unwatchable(fd);
    if (error != 0 && error != EPERM)
      throw std::system_error(error, std::generic_category(),
                              "evparallel: the event loop refused a descriptor");
    always_ready_ = error == EPERM;
    if (always_ready_) {
      event_.set<&LoopHandle::on_event>(*loop_, -1, 0, this);
      event_.add_in(std::chrono::nanoseconds::zero());
    } else {
      event_.set<&LoopHandle::on_event>(*loop_, fd, static_cast<short>(what | EV_PERSIST), this);
      event_.add();
    }
    activate();
  }

  void start_signal(int signum) {
    check_watch(signum);
    if (const int error = why_uncatchable(signum))
      throw std::system_error(error, std::generic_category(),
                              "evparallel: the event loop refused a signal");
    event_.set<&LoopHandle::on_event>(*loop_, signum, EV_SIGNAL | EV_PERSIST, this);
    loop_->watch_signals(event_);
    signal_ = true;  // only now: a refused watch must not be released
    activate();
  }

  void cancel() noexcept override {
    if (loop_->in_its_thread()) return cancel_here();
    loop_->call_in_its_thread([self = shared_from_this()] { self->cancel_here(); });
  }
  void detach_handle() noexcept override {
    loop_->call_in_its_thread([this, self = shared_from_this()] {
      if (active_) self_ = self;
    });
  }
  bool active() const override {
    loop_->check_thread();
    return active_;
  }

private:
  // A handle for one call of the callback.  Its end does not cancel the timer, but another one that
  // the callback has put in its place.
  struct LentTimer {
    explicit LentTimer(LoopHandle& of) : source(of), timer(of.shared_from_this()) {}
    LentTimer(const LentTimer&) = delete;
    LentTimer& operator=(const LentTimer&) = delete;
    ~LentTimer() {
      if (timer.source_.get() == &source) timer.source_.reset();
    }
    LoopHandle& source;
    Timer timer;
  };

  void cancel_here() noexcept {
    if (std::exchange(signal_, false)) loop_->unwatch_signals(event_);
    event_.remove();
    // The callback may own the handle of this object.
    callback_.release();
    deactivate();
  }

  void check_watch(int number) const {
    loop_->check_thread();
    loop_->check_at_home();
    if (number < 0)
      throw std::logic_error("evparallel: a watch needs a descriptor or a signal, and " +
                             std::to_string(number) + " is negative");
  }

  void activate() {
    active_ = true;
    register_with(*loop_);
    loop_->hold();
  }

  void deactivate() noexcept {
    if (!active_) return;
    active_ = false;
    if (loop_->alive()) loop_->release();
    unregister();
    // This may be the last reference: nothing below may use a member.
    const std::shared_ptr<LoopHandle> last = std::move(self_);
  }

  void on_loop_destroyed() noexcept override {
    const auto keep = shared_from_this();  // the callback may own the last handle
    cancel_here();
  }

  void on_timer() {
    const auto keep = shared_from_this();
    // libevent may use a coarse clock, which is up to 4 ms behind.
    const auto now = Clock::now();
    if (now < due_) return event_.add_in(due_ - now);
    if (period_ > std::chrono::nanoseconds::zero()) {
      due_ +=
          period_ * ((now - due_) / period_ + 1);  // periods that were missed are not made up for
      event_.add_in(due_ - now);
    } else {
      deactivate();
    }
    callback_();
    if (!active_) callback_.release();
  }

  void on_event() {
    const auto keep = shared_from_this();
    if (always_ready_) event_.add_in(std::chrono::nanoseconds::zero());
    callback_();
  }

  std::shared_ptr<Loop> loop_;
  CallbackSlot<void()> callback_;
  Event event_;
  std::chrono::nanoseconds period_{0};
  Clock::time_point due_;
  bool active_ = false;
  bool signal_ = false;
  bool always_ready_ = false;
  std::shared_ptr<LoopHandle> self_;
};

LoopRunner& runner_of(Reactor& reactor) noexcept {
  return *reactor.loop();
}

}  // namespace detail

using namespace detail;

// ---- Hold ----

Hold::Hold(std::shared_ptr<Loop> loop) noexcept : loop_(std::move(loop)) {
  loop_->hold_from_outside();
}
Hold& Hold::operator=(Hold&& other) noexcept {
  if (this != &other) {
    release();
    loop_ = std::move(other.loop_);
  }
  return *this;
}
Hold::~Hold() {
  release();
}
void Hold::release() noexcept {
  if (const std::shared_ptr<Loop> loop = std::move(loop_)) loop->release_from_outside();
}

// ---- Reactor ----

Reactor::Reactor() : loop_(std::make_shared<Loop>(nullptr, true)) {}

Reactor::Reactor(event_base* base) {
  if (!base) throw std::logic_error("evparallel: the event_base of a Reactor is null");
  loop_ = std::make_shared<Loop>(base, false);
}

Reactor::~Reactor() {
  loop_->close_when_idle();
}

void Reactor::run() {
  loop_->run(nullptr);
}

bool Reactor::run_for(duration limit) {
  refuse_negative("Reactor::run_for", limit);
  const std::shared_ptr<Loop> loop = loop_;  // a callback may destroy this
  loop->run(&limit);
  return loop->pending();
}

int Reactor::fd() {
  return loop_->fd();
}

std::optional<Reactor::duration> Reactor::until_next() const {
  return loop_->until_next();
}

void Reactor::poll() {
  loop_->poll();
}

void Reactor::bind_to_no_thread() {
  loop_->bind_to_no_thread();
}

void Reactor::stop() noexcept {
  loop_->stop();
}

Timer Reactor::after(duration time, TimerCallback callback) {
  refuse_negative("Reactor::after", time);
  auto source = make_on<LoopHandle>(loop_, *loop_, std::move(callback));
  source->start_timer(time, false);
  return Timer(std::move(source));
}

Timer Reactor::every(duration time, TimerCallback callback) {
  if (time <= duration::zero())
    throw std::logic_error("evparallel: the period of Reactor::every must be above zero");
  auto source = make_on<LoopHandle>(loop_, *loop_, std::move(callback));
  source->start_timer(time, true);
  return Timer(std::move(source));
}

Watch Reactor::on_readable(int fd, Callback<void()> callback) {
  auto source = make_on<LoopHandle>(loop_, *loop_, std::move(callback));
  source->start_watch(fd, EV_READ);
  return Watch(std::move(source));
}

Watch Reactor::on_writable(int fd, Callback<void()> callback) {
  auto source = make_on<LoopHandle>(loop_, *loop_, std::move(callback));
  source->start_watch(fd, EV_WRITE);
  return Watch(std::move(source));
}

Watch Reactor::on_signal(int signum, Callback<void()> callback) {
  auto source = make_on<LoopHandle>(loop_, *loop_, std::move(callback));
  source->start_signal(signum);
  return Watch(std::move(source));
}

void Reactor::post(Callback<void()> callback) {
  loop_->post(std::move(callback));
}
Hold Reactor::hold() {
  return Hold(loop_);
}

void Reactor::on_exception(Callback<void(std::exception_ptr)> callback) {
  loop_->check_thread();
  loop_->on_exception(std::move(callback));
}

event_base* Reactor::base() const noexcept {
  return loop_->base();
}

namespace {

// The main thread of the child runs it.
EVPARALLEL_EARLY Reactor* new_reactor_of_child() {
  if (this_thread_number() != ::getpid())
    throw std::logic_error(
        "evparallel: this_reactor() belongs to the main thread of a child; give another thread a "
        "Reactor of its own");
  return new Reactor;
}

}  // namespace

Reactor& this_reactor() {
  if (role() != Role::child)
    throw std::logic_error("evparallel: this_reactor() can be called only by the task of a child");
  static auto* reactor = new_reactor_of_child();  // never destroyed: a child ends by _exit
  reactor->loop()->check_thread();
  return *reactor;
}

}  // namespace evparallel
