// event_loop.cpp - the iterations of the loop, and the calls of libevent.
// Runs in: parent, child.  Licence: see COPYING.
#include "loop/event_loop.hpp"

#include "base/startup_path.hpp"
#include "system/fork.hpp"
#include "system/new_descriptor.hpp"
#include "system/polling.hpp"
#include "system/process_lock.hpp"
#include "codec/remote_error.hpp"
#include "loop/interruption.hpp"

#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string_view>
#include <system_error>

namespace evparallel::detail {

namespace {

std::atomic<int> loops{0};
// Guarded by the ProcessLock.
Loop* first_loop = nullptr;
Loop* signal_loop = nullptr;
int signal_watches = 0;

// Its queue, and a pair for signals: libevent ends the process if it gets the first and not the
// others.
constexpr int descriptors_of_base = 3;

constexpr const char* inside_its_base =
    "evparallel: Reactor::run was called inside a callback of its event_base";

bool environment_has_settings() noexcept {
  constexpr std::string_view settings = "EVENT_";
  for (char** variable = environ; variable && *variable; ++variable)
    if (std::string_view(*variable).substr(0, settings.size()) == settings) return true;
  return false;
}

// libevent looks up each of its settings in the environment, and checks each time whether it may
// trust them: a dozen system calls in each child with a loop.  If none is set they are left out.
// One of the settings asks for a timer, which takes a descriptor.
event_base* new_base() noexcept {
  const bool settings = environment_has_settings();
  const ProcessLock lock;  // see free_base()
  const HeldNumbers held(descriptors_of_base + (settings ? 1 : 0));
  errno = held.error();
  if (errno != 0) return nullptr;
  if (settings) return ::event_base_new();
  event_config* const config = ::event_config_new();
  if (!config) return nullptr;
  ::event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
  event_base* const base = ::event_base_new_with_config(config);
  ::event_config_free(config);
  return base;
}

}  // namespace

EVPARALLEL_EARLY int living_loops() noexcept {
  return loops;
}

bool Loop::any_in_callback() {
  const ProcessLock lock;
  for (const Loop* loop = first_loop; loop; loop = loop->next_)
    if (loop->in_its_thread() && loop->in_callback()) return true;
  return false;
}

// ---- Loop ----

Loop::Loop(event_base* base, bool owned)
    : base_(base), owned_(owned), number_limit_(number_limit()), next_on_base_(this) {
  if (owned) base_ = new_base();
  if (!base_)
    throw std::system_error(errno ? errno : EINVAL, std::generic_category(),
                            "evparallel: the event base could not be created");
  if (const int error = posted_.open()) {
    if (owned_) ::event_base_free(base_);
    throw std::system_error(error, std::generic_category(), "evparallel: eventfd");
  }
  deferred_event_.set<&Loop::run_deferred>(*this, -1, 0, this);
  retry_event_.set<&Loop::retry_all>(*this, -1, 0, this);
  posted_event_.set<&Loop::run_posted>(*this, posted_.fd(), EV_READ | EV_PERSIST, this);
  posted_event_.add();
  join_loops();
}

Loop::~Loop() = default;

// ---- the loops of this process ----

EVPARALLEL_EARLY void Loop::join_loops() {
  static const bool registered = (hold_locks_during_forks(&Loop::mark_all_inherited), true);
  static_cast<void>(registered);
  const ProcessLock lock;
  for (Loop* loop = owned_ ? nullptr : first_loop; loop; loop = loop->next_) {
    if (loop->base_ != base_) continue;
    if (loop->thread_.load(std::memory_order_relaxed)) {
      if (!loop->in_its_thread()) loop->refuse_thread();
      thread_number_ = loop->thread_number_;
      thread_.store(loop->thread_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    }
    next_on_base_ = std::exchange(loop->next_on_base_, this);
    break;
  }
  next_ = std::exchange(first_loop, this);
  ++loops;
}

void Loop::leave_loops() noexcept {
  const ProcessLock lock;
  Loop** link = &first_loop;
  while (*link != this) link = &(*link)->next_;
  *link = next_;
  --loops;
  Loop* before = this;
  while (before->next_on_base_ != this) before = before->next_on_base_;
  before->next_on_base_ = next_on_base_;
}

// ---- its thread ----

EVPARALLEL_EARLY void Loop::bind_to_thread() {
  const ProcessLock lock;
  if (thread_.load(std::memory_order_relaxed)) refuse_thread();
  Loop* loop = this;
  do {
    loop->take_over_thread();
    loop = loop->next_on_base_;
  } while (loop != this);
}

void Loop::refuse_thread() const {
  throw std::logic_error(
      "evparallel: thread " + std::to_string(this_thread_number()) +
      " uses a Reactor, or a handle of it, that belongs to thread " +
      std::to_string(thread_number_) +
      ": use Reactor::post() to run something there, or give each thread a Reactor of its own");
}

const char Loop::any_thread = 0;

void Loop::bind_to_no_thread() {
  check_thread();
  Loop* loop = this;
  do {
    loop->thread_.store(&any_thread, std::memory_order_relaxed);
    loop = loop->next_on_base_;
  } while (loop != this);
}

EVPARALLEL_EARLY void Loop::take_over_thread() noexcept {
  thread_number_ = this_thread_number();
  thread_.store(this_thread(), std::memory_order_relaxed);
}

void Loop::call_elsewhere(Callback<void()> f) noexcept {
  const auto keep = weak_from_this().lock();
  for (;;) try {
      if (posted_.push(f)) return;
      break;
    } catch (const std::bad_alloc&) {  // the thread of the loop cannot be told otherwise
      pause_for(1);
    }
  const ClosedLoopLock lock;
  f();
  f = nullptr;
}

void Loop::close() noexcept {
  mirror_ = nullptr;
  expected_ = nullptr;
  kept_mirror_.reset();
  while (attached_) {
    LoopObserver& gone = *attached_;
    gone.unregister();
    gone.on_loop_destroyed();
  }
  deferred_event_.remove();
  retry_event_.remove();
  posted_event_.remove();

  if (!inherited_) leave_loops();
  free_base();
  on_exception_.release();
  // The callbacks are destroyed without a call; they may own handles whose destructors come back
  // here.
  const RingBuffer<Callback<void()>> deferred = std::move(deferred_);
  clear_posted();
  closed_.store(true, std::memory_order_release);
}

// libevent keeps which base gets the signals in one place for all of them.
void Loop::free_base() noexcept {
  const ProcessLock lock;
  if (owned_ && (!inherited_ || part())) ::event_base_free(base_);
  base_ = nullptr;
}

void Loop::close_when_idle() noexcept {
  if (!in_its_thread()) take_over_thread();
  if (!in_callback() && !running_) return close();
  if (inherited_) return;
  mute_ = true;
  stop_ = true;
  if (running_) {  // run() closes it
    ::event_base_loopbreak(base_);
    return;
  }
  // The program dispatches the base, and goes on with it.
  owned_ = false;
  constexpr timeval now{};
  closing_ = shared_from_this();
  ::event_base_once(
      base_, -1, EV_TIMEOUT,
      [](int, short, void* argument) {
        const std::shared_ptr<Loop> loop = std::move(static_cast<Loop*>(argument)->closing_);
        loop->close();
      },
      this, &now);
}

// ---- in a process that the program has forked ----

// For a snapshot and its children there is nothing left to do: there was no loop.
void Loop::mark_all_inherited() noexcept {
  for (Loop* loop = first_loop; loop; loop = loop->next_) {
    loop->inherited_ = loop->mute_ = true;
    loop->mirror_ = nullptr;
    loop->next_on_base_ = loop;
    loop->take_over_thread();
  }
  first_loop = nullptr;
  loops = 0;
  signal_loop = nullptr;
  signal_watches = 0;
}

// Removing an event also removes it from the kernel's queue, which is shared with the program until
// Calls event_reinit(), so that libevent knows of the fork.  Returns false, and removes nothing, if
// there are no descriptors for it: libevent would end the process.
bool Loop::part() noexcept {
  if (parted_) return true;
  const HeldNumbers held(descriptors_of_base);
  if (held.error() && number_limit() < number_limit_) return false;
  parted_ = true;
  ::event_reinit(base_);
  return true;
}

void Loop::check_at_home() const {
  if (inherited_)
    throw std::logic_error(
        "evparallel: this Reactor belongs to another process, from which this one was forked");
}

// ---- callbacks for later ----

void Loop::defer(Callback<void()> callback) {
  deferred_.push_back(std::move(callback));
  if (deferred_.size() == 1) deferred_event_.activate();
}

void Loop::defer_or_call(Callback<void()> callback) noexcept {
  try {
    reserve_deferred(1);
  } catch (const std::bad_alloc&) {
    return call([&] { callback(); });
  }
  defer(std::move(callback));
}

void Loop::retry_later() noexcept {
  if (!alive() || std::exchange(retries_, true)) return;
  try {
    retry_event_.add_in(std::chrono::milliseconds(1));
  } catch (const std::exception&) {  // libevent has no memory for the timer
    retry_event_.activate();
  }
}

// An observer may remove itself, or another one, or the loop.
void Loop::retry_all() {
  const auto keep = shared_from_this();
  retries_ = false;
  next_to_retry_ = attached_;
  while (next_to_retry_ && !interrupted()) {
    LoopObserver& one = *next_to_retry_;
    next_to_retry_ = one.next_;
    call([&one] { one.retry(); });
  }
  if (std::exchange(next_to_retry_, nullptr)) retry_later();
}

void Loop::run_deferred() {
  // Callbacks that are deferred meanwhile run in this iteration, too, because each iteration costs a
  // system call; but only for some rounds, so that the loop also looks at its descriptors and timers.
  constexpr int most_rounds = 8;
  for (int round = 0; round < most_rounds && !deferred_.empty() && !interrupted(); ++round) {
    for (std::size_t left = deferred_.size(); left > 0 && !interrupted(); --left) {
      Callback<void()> callback = std::move(deferred_.front());
      deferred_.pop_front();
      call([&] { callback(); });
    }
  }
  if (deferred_.empty()) return;
  if (interrupted()) return deferred_event_.activate();
  deferred_event_.add_in(std::chrono::nanoseconds::zero());
}

void Loop::post(Callback<void()> callback) {
  check_at_home();
  posted_.push(callback);
}

void Loop::run_posted() {
  PostedQueue::Callbacks posted = posted_.take();
  if (stop_posted_.exchange(false)) stop();
  while (!posted.empty() && !interrupted()) {
    Callback<void()> callback = std::move(posted.front());
    posted.pop_front();
    call([&] { callback(); });
  }
  // run() has to return first.
  if (!posted.empty()) posted_.put_back(std::move(posted));
}

void Loop::clear_posted() noexcept {
  PostedQueue::Left left;
  if (!inherited_)
    left = posted_.close();
  else if (!posted_.close_inherited(left))
    new std::shared_ptr<Loop>(shared_from_this());  // leaked: nothing may destroy the queue
}

// As at the end of the loop, but it may turn on.
void Loop::refuse_posts() noexcept {
  const PostedQueue::Left left = posted_.refuse();
}

void Loop::release_from_outside() noexcept {
  if (--outside_holds_ == 0) posted_.wake();
}

// ---- pending work ----

bool Loop::idle() const noexcept {
  return holds_ == 0 && outside_holds_ == 0 && posted_.empty() && deferred_.empty() && !retries_;
}

// A borrowed base may have other loops of the library, and events of the program.
bool Loop::pending() const noexcept {
  if (!base_) return false;
  int ours = 0;
  const Loop* loop = this;
  do {
    if (!loop->idle()) return true;
    ours += loop->own_events_;
    loop = loop->next_on_base_;
  } while (loop != this);
  return ::event_base_get_num_events(base_, EVENT_BASE_COUNT_ADDED) > ours;
}

struct Loop::MirroredTurn {
  explicit MirroredTurn(Loop& l) noexcept : loop(l) {
    if (loop.mirror_) loop.begin_mirrored_turn();
  }
  MirroredTurn(const MirroredTurn&) = delete;
  MirroredTurn& operator=(const MirroredTurn&) = delete;
  ~MirroredTurn() {
    if (loop.mirror_) loop.end_mirrored_turn();
  }
  Loop& loop;
};

// EVLOOP_NONBLOCK alone would not return as long as one descriptor stays ready.
void Loop::turn(bool may_wait) {
  const int flags = may_wait ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK;
  const MirroredTurn mirrored(*this);
  errno = 0;
  if (::event_base_loop(base_, flags) < 0) refused_to_turn();
  if (role() == Role::child) check_death_signal(steps_of_turn);
  rethrow();
}

// libevent does not say why it has failed.  If it refused to start, as it does inside a callback of
// a borrowed base, it has not called the kernel.
void Loop::refused_to_turn() const {
  if (errno != 0)
    throw std::system_error(errno, std::generic_category(),
                            "evparallel: the event loop cannot wait for its descriptors");
  throw std::logic_error(inside_its_base);
}

// libevent would refuse as well, with a line on standard error.
bool Loop::base_is_running() const noexcept {
  const Loop* loop = this;
  do {
    if (loop->running_ || loop->depth_ > 0) return true;
    loop = loop->next_on_base_;
  } while (loop != this);
  return false;
}

// While run() or run_until() is active.
struct Loop::Running {
  explicit Running(Loop& l) : loop(l) {
    Interruption::watch_run(loop, interrupts);
    loop.running_ = true;
  }
  ~Running() {
    loop.running_ = false;
    loop.stop_ = false;
    if (loop.mute_ && !loop.inherited_) loop.close();
  }
  Loop& loop;
  std::optional<InterruptWatch> interrupts{};
};

void Loop::run(const std::chrono::nanoseconds* limit) {
  check_thread();
  check_at_home();
  const auto keep = shared_from_this();
  if (running_ || depth_ > 0)
    throw std::logic_error(
        "evparallel: Reactor::run was called inside a callback of the same reactor");
  if (base_is_running()) throw std::logic_error(inside_its_base);
  const Running running(*this);
  stop_ = stop_posted_ = false;
  rethrow();
  run_turns(limit);
}

// At least one turn, also if nothing is pending: sockets of snapshots and idle children, and timers
// of pools, do not keep a loop running, and a program that only polls has no other turn for them.
void Loop::run_turns(const std::chrono::nanoseconds* limit) {
  const auto start = std::chrono::steady_clock::now();
  auto left = limit ? *limit : std::chrono::nanoseconds::zero();
  const auto may_wait = [&] {
    return pending() && (!limit || left > std::chrono::nanoseconds::zero());
  };
  Event bell;
  if (limit) bell.set<&Loop::interrupt>(*this, -1, 0, this);
  bool wait = may_wait();
  do {
    if (wait && limit) bell.add_in(left);
    turn(wait);
    check_at_home();  // a callback has forked, and this is the forked copy
    bell.remove();
    if (stop_ || ended_by_program()) return;
    if (limit) left = *limit - (std::chrono::steady_clock::now() - start);
    wait = may_wait();
  } while (wait);
}

// In another loop, which has seen already that there is something to do: the descriptor that had input
// the last time is tried without asking the kernel for all that are ready, which would be the second
// call for the same answer.  Returns false if a turn is still to be made: the try was in vain, is not
// due, or has left work that belongs to the same turn.
bool Loop::take_expected_input() {
  constexpr unsigned most_tries = 8;      // so that other descriptors are never kept waiting
  constexpr unsigned turns_in_vain = 16;  // so that guesses that fail cost little
  if (!expected_ || !has_only_input()) return false;
  if (untried_left_ > 0) {
    --untried_left_;
    return false;
  }
  if (tries_left_ == 0) {
    tries_left_ = most_tries;
    return false;
  }
  --tries_left_;
  const auto keep = shared_from_this();
  bool stopped = false;
  {
    const Running running(*this);
    {
      const MirroredTurn mirrored(*this);
      std::exchange(expected_, nullptr)->call_for_input();
      // A part of the same turn: the calls that it has made, for instance, are sent now.
      if (alive() && !interrupted() && !deferred_.empty()) {
        deferred_event_.remove();
        run_deferred();
      }
      rethrow();
    }
    check_at_home();  // a callback has forked, and this is the forked copy
    stopped = stop_;
  }
  if (!alive() || stopped) return true;
  if (expected_) return !ready_at_once();
  untried_left_ = turns_in_vain;
  return false;
}

void Loop::check_can_run() {
  check_thread();
  check_at_home();
  if (running_ || depth_ > 0 || base_is_running())
    throw std::logic_error(
        "evparallel: wait() was called inside a callback of the loop that it would run; pass a "
        "callback to the call instead");
}

bool Loop::run_until(const bool& done) {
  check_can_run();
  const auto keep = shared_from_this();
  const Running running(*this);
  stop_ = stop_posted_ = false;
  rethrow();
  while (!done && !stop_ && pending()) {
    turn();
    check_at_home();  // a callback has forked, and this is the forked copy
    if (ended_by_program()) break;
  }
  return done;
}

// Ended by event_base_loopbreak() or event_base_loopexit(), as in loops of the program itself.
bool Loop::ended_by_program() const noexcept {
  return ::event_base_got_break(base_) || ::event_base_got_exit(base_);
}

void Loop::interrupt() noexcept {}

void Loop::stop() noexcept {
  if (!in_its_thread()) {
    stop_posted_ = true;
    return posted_.wake();
  }
  if (!running_) return;
  stop_ = true;
  ::event_base_loopbreak(base_);
}

void Loop::caught() noexcept {
  if (role() == Role::child) end_if_thread_leaves();
  if (running_ || owned_) {
    if (!thrown_) thrown_ = std::current_exception();
    ::event_base_loopbreak(base_);
    if (mirror_) show_mirror();
    return;
  }
  // The program dispatches its own base, so there is no run() that could throw.
  if (!on_exception_.is_set()) std::terminate();
  on_exception_(std::current_exception());
}

void Loop::rethrow() {
  if (!thrown_) return;
  const std::exception_ptr thrown = std::exchange(thrown_, nullptr);
  if (mirror_) show_mirror();
  std::rethrow_exception(thrown);
}

void Loop::watch_signals(Event& event) {
  const ProcessLock lock;
  if (signal_loop && signal_loop != this)
    throw std::logic_error("evparallel: another reactor of this process already watches signals");
  event.add();
  signal_loop = this;
  ++signal_watches;
}

void Loop::unwatch_signals(Event& event) noexcept {
  const ProcessLock lock;
  event.remove();
  if (signal_loop == this && --signal_watches == 0) signal_loop = nullptr;
}

char* Loop::scratch() {
  if (!scratch_) scratch_.reset(new char[scratch_size]);
  return scratch_.get();
}

}  // namespace evparallel::detail
