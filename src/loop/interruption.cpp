// interruption.cpp - signals that end the loop that runs.
// Runs in: parent, child.  Licence: see COPYING.
#include "loop/interruption.hpp"

#include <evparallel/interrupt.hpp>

#include "base/names.hpp"
#include "system/fork.hpp"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace evparallel {

namespace detail {

namespace {

std::atomic<Interruption*> active{nullptr};
std::atomic<pthread_t> its_thread{};  // valid while there is one

void forget_in_copy() noexcept {
  if (active) active = nullptr;
}

}  // namespace

// ---- InterruptWatch ----

InterruptWatch::InterruptWatch(Loop& loop, std::shared_ptr<Interruption> interruption, Of of)
    : interruption_(std::move(interruption)), of_(of) {
  event_.set<&InterruptWatch::on_signal>(loop, interruption_->signals_.fd(), EV_READ | EV_PERSIST,
                                         this);
  event_.add();
  register_with(loop);
  if (of_ == Of::run) ++interruption_->runs_;
}

InterruptWatch::~InterruptWatch() {
  if (of_ == Of::run) --interruption_->runs_;
}

// A loop that runs throws to its caller.  The given one may share its base, and then has an event
// for the signal as well.
void InterruptWatch::on_signal() {
  if (of_ == Of::given_loop && interruption_->runs_ > 0) return;
  if (const int signum = interruption_->signals_.take()) throw Interrupted(signum);
}

// ---- Interruption ----

void Interruption::begin(Loop* given) {
  if (role() == Role::child)
    throw std::logic_error(
        "evparallel: interruptible() was called in a child, which its program ends");
  if (given) given->check_at_home();
  const int error = signals_.start();
  if (error == EBUSY)
    throw std::logic_error(
        "evparallel: interruptible() was called twice; its first result still lives");
  if (error != 0)
    throw std::system_error(error, std::generic_category(), "evparallel: interruptible()");
  static const bool registered = (on_fork_in_child(forget_in_copy), true);
  static_cast<void>(registered);
  if (given) given_loop_.emplace(*given, shared_from_this(), InterruptWatch::Of::given_loop);
  its_thread = ::pthread_self();
  active = this;
}

int Interruption::end() noexcept {
  if (active == this) active = nullptr;
  given_loop_.reset();
  return signals_.stop();
}

void Interruption::watch_run(Loop& loop, std::optional<InterruptWatch>& watch) {
  Interruption* const now = active;
  if (!now || ::pthread_equal(its_thread, ::pthread_self()) == 0) return;
  watch.emplace(loop, now->shared_from_this(), InterruptWatch::Of::run);
}

}  // namespace detail

using namespace detail;

// ---- Interrupted ----

Interrupted::Interrupted(int signum) : signum_(signum), text_() {
  std::snprintf(text_, sizeof text_, "interrupted by %s", signal_name(signum).c_str());
}
Interrupted::Interrupted(const Interrupted&) noexcept = default;
Interrupted& Interrupted::operator=(const Interrupted&) noexcept = default;
Interrupted::~Interrupted() = default;

const char* Interrupted::what() const noexcept {
  return text_;
}

// ---- Interrupts ----

Interrupts::Interrupts() noexcept = default;
Interrupts::Interrupts(std::shared_ptr<Interruption> of) noexcept : of_(std::move(of)) {}
Interrupts::Interrupts(Interrupts&&) noexcept = default;
Interrupts& Interrupts::operator=(Interrupts&& other) noexcept {
  if (this != &other) {
    release();
    of_ = std::move(other.of_);
  }
  return *this;
}
Interrupts::~Interrupts() {
  release();
}

void Interrupts::release() noexcept {
  if (const int signum = end_body()) ::raise(signum);
}

int Interrupts::end_body() noexcept {
  const std::shared_ptr<Interruption> of = std::move(of_);
  return of ? of->end() : 0;
}

// ---- interruptible ----

namespace {

std::shared_ptr<Interruption> interruption_with(Loop* given) {
  auto interruption = std::make_shared<Interruption>();
  interruption->begin(given);
  return interruption;
}

}  // namespace

Interrupts interruptible() {
  return Interrupts(interruption_with(nullptr));
}
Interrupts interruptible(Reactor& loop) {
  return Interrupts(interruption_with(loop.loop().get()));
}

}  // namespace evparallel
