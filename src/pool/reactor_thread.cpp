// reactor_thread.cpp - the thread of a ReactorThread.
// Runs in: parent.  Licence: see COPYING.
#include <evparallel/detail/thread_calls.hpp>

#include "base/negative.hpp"
#include "system/fork.hpp"

#include <pthread.h>
#include <signal.h>

#include <memory>
#include <stdexcept>
#include <system_error>
#include <unordered_map>

namespace evparallel::detail {

namespace {

// A fault of the thread itself must reach the program's handler for it.
sigset_t all_but_faults() noexcept {
  sigset_t set;
  sigfillset(&set);
  for (const int signum : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT})
    sigdelset(&set, signum);
  return set;
}

// The Reactor is made by the caller, who gets its errors, and is used and destroyed in the thread.
class ReactorThreadCore final : public ReactorThreadInterface,
                                public std::enable_shared_from_this<ReactorThreadCore> {
public:
  ReactorThreadCore()
      : loop_(std::make_unique<Reactor>()), address_(*loop_), hold_(loop_->hold()) {}

  void start() {
    const sigset_t blocked = all_but_faults();
    sigset_t before;
    auto keep = std::make_unique<std::shared_ptr<ReactorThreadCore>>(shared_from_this());
    ::pthread_sigmask(SIG_SETMASK, &blocked, &before);
    const int error = ::pthread_create(&thread_, nullptr, &ReactorThreadCore::main, keep.get());
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (error != 0)
      throw std::system_error(error, std::generic_category(),
                              "evparallel: the thread of a ReactorThread could not be created");
    static_cast<void>(keep.release());
    ::pthread_setname_np(thread_, "ReactorThread");
  }

  bool post(Callback<void()>& callback) override { return address_.post(callback); }
  bool at_home() const noexcept override { return owner_.is_here(); }
  void check_at_home() const override {
    if (!at_home())
      throw std::logic_error(
          "evparallel: this ReactorThread belongs to another process, from which this one was "
          "forked");
  }
  bool is_current() const noexcept override {
    return at_home() && ::pthread_equal(::pthread_self(), thread_) != 0;
  }

  void stop() noexcept override {
    if (!at_home() || joined_) return;
    Callback<void()> last = [this] {
      stopping_ = true;
      loop_->stop();
    };
    address_.post(last);  // otherwise it has ended
    if (is_current()) return;
    ::pthread_join(thread_, nullptr);
    joined_ = true;
  }
  void abandon() noexcept override {
    stop();
    if (is_current() && !joined_) ::pthread_detach(thread_);
  }

  Reactor& reactor() noexcept override { return *loop_; }
  void set_on_exception(Callback<void(std::exception_ptr)> callback) override {
    on_exception_ = std::move(callback);
  }
  void keep(std::shared_ptr<OwnedByThread> owned) override {
    OwnedByThread* const key = owned.get();
    owned_.emplace(key, std::move(owned));
  }
  void end(OwnedByThread& owned) noexcept override {
    owned.end(false);
    owned_.erase(&owned);
  }

private:
  static void* main(void* argument) noexcept {
    const std::unique_ptr<std::shared_ptr<ReactorThreadCore>> self(
        static_cast<std::shared_ptr<ReactorThreadCore>*>(argument));
    (*self)->work();
    return nullptr;
  }

  void work() noexcept {
    while (!stopping_) guarded([this] { loop_->run(); });
    address_.refuse_posts();
    for (const auto& [key, owned] : owned_) owned->end(true);
    // Their calls get their errors, which say how far they came.
    guarded([this] { loop_->run_for(Reactor::duration::zero()); });
    owned_.clear();
    hold_.release();
    loop_.reset();
    on_exception_ = nullptr;
  }

  // An exception that leaves work() ends the program, with the text of the exception.
  template <class F>
  void guarded(F f) {
    try {
      f();
    } catch (...) {
      // A callback has forked, and this is the copy: only the loop knows.
      if (!on_exception_ || !at_home()) throw;
      // It may replace itself.
      Callback<void(std::exception_ptr)> callback = std::move(on_exception_);
      callback(std::current_exception());
      if (!on_exception_) on_exception_ = std::move(callback);
    }
  }

  const OwnerProcess owner_ = OwnerProcess::here();
  pthread_t thread_{};
  bool joined_ = false;  // by the thread that calls stop()

  // Of the thread.
  std::unique_ptr<Reactor> loop_;
  const LoopAddress address_;  // any thread
  Hold hold_;
  bool stopping_ = false;
  Callback<void(std::exception_ptr)> on_exception_ = nullptr;
  std::unordered_map<OwnedByThread*, std::shared_ptr<OwnedByThread>> owned_;
};

}  // namespace

std::shared_ptr<ReactorThreadInterface> start_reactor_thread() {
  if (role() != Role::parent)
    throw std::logic_error(
        "evparallel: a ReactorThread cannot be made in a child; use this_reactor()");
  auto core = std::make_shared<ReactorThreadCore>();
  core->start();
  return core;
}

Error thread_has_ended() {
  return Error(Errc::cancelled, "cancelled: the ReactorThread has ended");
}

void check_call_options(const CallOptions& options) {
  if (options.deadline) refuse_negative("CallOptions::deadline", *options.deadline);
}

void refuse_closed_handle(bool is_empty) {
  throw std::logic_error(
      is_empty ? "evparallel: an empty SharedRemote or SharedPool was used"
               : "evparallel: a function of a ReactorThread was called after its close()");
}

void post_or_throw(ReactorThreadInterface& thread, Callback<void()> callback) {
  thread.check_at_home();
  if (!thread.post(callback)) throw thread_has_ended();
}

}  // namespace evparallel::detail
