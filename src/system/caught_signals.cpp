// caught_signals.cpp - the signals by which a user ends a program, caught and kept for its loop.
// Runs in: parent.  Licence: see COPYING.
#include "system/caught_signals.hpp"

#include "base/clock.hpp"
#include "system/fork.hpp"
#include "system/new_descriptor.hpp"

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <utility>

namespace evparallel::detail {

namespace {

// Programs that pass a signal on, such as timeout(1), send it to a process and then to its group: a
// member gets it twice.
constexpr std::int64_t same_signal_ns = 200000000;

struct Signal {
  int signum;
  bool caught = false;
  struct sigaction before {};
  std::atomic<bool> waiting{false};   // for take()
  std::atomic<std::int64_t> came{0};  // when it came first; 0: not yet
};

Signal signals[] = {{SIGINT}, {SIGTERM}};
std::atomic<CaughtSignals*> catching{nullptr};
std::atomic<int> bell{-1};
std::atomic<int> handlers{0};  // that run at this moment, in any thread
std::atomic<pid_t> owner{0};

static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free &&
              std::atomic<std::int64_t>::is_always_lock_free);

Signal& signal_of(int signum) noexcept {
  return signum == signals[0].signum ? signals[0] : signals[1];
}

void ring(int fd) noexcept {
  const std::uint64_t one = 1;
  if (::write(fd, &one, sizeof one) < 0) return;  // full: it is readable
}

// In a handler, where the signal is blocked until the end of it.
void have_default_effect(int signum) noexcept {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  ::sigaction(signum, &action, nullptr);
  ::kill(::getpid(), signum);
}

// Returns false if the signal is to have its default effect.
bool keep(Signal& signal) noexcept {
  const std::int64_t now = now_ns();
  std::int64_t first = 0;
  if (!signal.came.compare_exchange_strong(first, now)) return now - first < same_signal_ns;
  signal.waiting = true;
  return true;
}

// It may be called after the end of its object: if something else has changed the disposition
// meanwhile and then changed it back.
void on_signal(int signum) noexcept {
  const int error = errno;
  ++handlers;
  const int fd = bell;
  if (fd >= 0 && owner == ::getpid() && keep(signal_of(signum)))
    ring(fd);
  else
    have_default_effect(signum);
  --handlers;
  errno = error;
}

void restore(Signal& signal) noexcept {
  if (!signal.caught) return;
  signal.caught = false;
  struct sigaction now {};
  if (::sigaction(signal.signum, nullptr, &now) == 0 && now.sa_handler == on_signal)
    ::sigaction(signal.signum, &signal.before, nullptr);
}

void restore_all() noexcept {
  for (Signal& signal : signals) restore(signal);
  bell = -1;
}

// In a process that the program has forked a signal has the effect of before.
void forget() noexcept {
  if (!catching) return;
  catching = nullptr;
  handlers = 0;  // the threads that run them are not here
  restore_all();
}

}  // namespace

int CaughtSignals::start() noexcept {
  OwnedFd opened(open_counter());
  if (!opened) return errno;
  CaughtSignals* none = nullptr;
  if (!catching.compare_exchange_strong(none, this)) return EBUSY;
  static const bool registered = (on_fork_in_child(forget), true);
  static_cast<void>(registered);
  bell_ = std::move(opened);
  owner = ::getpid();
  bell = bell_.get();
  for (Signal& signal : signals) {
    signal.waiting = false;
    signal.came = 0;
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    ::sigaction(signal.signum, nullptr, &signal.before);
    if (signal.before.sa_handler == SIG_IGN) continue;
    signal.caught = ::sigaction(signal.signum, &action, nullptr) == 0;
  }
  return 0;
}

int CaughtSignals::stop() noexcept {
  if (catching != this) return 0;
  restore_all();
  // One in another thread may be about to write to the descriptor.
  while (handlers > 0) ::sched_yield();
  const int left = take();
  catching = nullptr;
  return left;
}

int CaughtSignals::take() noexcept {
  if (catching != this) return 0;
  std::uint64_t count = 0;
  if (::read(bell_.get(), &count, sizeof count) < 0) count = 0;  // it has not rung
  int taken = 0;
  for (Signal& signal : signals) {
    if (taken != 0 && signal.waiting) ring(bell_.get());
    if (taken == 0 && signal.waiting.exchange(false)) taken = signal.signum;
  }
  return taken;
}

}  // namespace evparallel::detail
