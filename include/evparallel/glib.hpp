// glib.hpp - a Reactor inside of a main loop of GLib.
// Licence: see COPYING.  Manual: evparallel_loops(3).
//
// Needs GLib 2.36 or later; evparallel.hpp does not include this file.
#pragma once

#include <evparallel/detail/driven_reactor.hpp>
#include <evparallel/reactor.hpp>

#include <glib.h>

#include <exception>
#include <memory>
#include <utility>

namespace evparallel {

// A Reactor of its own whose turns a GMainContext makes.  It is used in the thread that runs the
// context.  Move-only; a callback may destroy it.  If a callback runs the context, the Reactor makes
// no turn there.
class GlibReactor {
public:
  // nullptr: the default context.  Fails: std::system_error.
  explicit GlibReactor(GMainContext* context = nullptr)
      : state_(std::make_shared<detail::DrivenReactor>()) {
    auto turns = std::make_unique<Turns>();
    turns->state = state_;
    const int fd = state_->loop()->fd();
    static GSourceFuncs functions{nullptr, nullptr, &dispatch, nullptr, nullptr, nullptr};
    source_ = ::g_source_new(&functions, sizeof(GSource));
    // Otherwise GLib takes its descriptor out before each turn and puts it in again behind it, for
    // which it wakes itself up: three system calls.
    ::g_source_set_can_recurse(source_, TRUE);
    turns->source = source_;
    turns->descriptor = ::g_source_add_unix_fd(source_, fd, G_IO_IN);
    ::g_source_set_callback(source_, &turn, turns.release(), &forget);
    ::g_source_attach(source_, context);
  }
  GlibReactor(GlibReactor&& other) noexcept
      : state_(std::move(other.state_)), source_(std::exchange(other.source_, nullptr)) {}
  GlibReactor& operator=(GlibReactor&& other) noexcept {
    GlibReactor taken(std::move(other));
    state_.swap(taken.state_);
    std::swap(source_, taken.source_);
    return *this;
  }
  // Destroys the Reactor, as ~Reactor() does.
  ~GlibReactor() {
    if (!source_) return;
    const std::shared_ptr<detail::DrivenReactor> state = state_;
    ::g_source_destroy(source_);
    ::g_source_unref(source_);
    state->end();
  }

  Reactor& operator*() const noexcept { return *state_->loop(); }
  Reactor* operator->() const noexcept { return state_->loop(); }

  // Called with an exception that leaves a callback.  Without it, or if it throws, such an exception
  // ends the program, because it cannot pass through GLib.
  void on_exception(Callback<void(std::exception_ptr)> callback) {
    state_->on_exception(std::move(callback));
  }

private:
  // Lives as long as the source, and longer if it is destroyed in its own turn.
  struct Turns {
    std::shared_ptr<detail::DrivenReactor> state{};
    GSource* source = nullptr;
    gpointer descriptor = nullptr;
    bool in_turn = false;
    bool quiet = false;

    void watch(bool on) {
      quiet = !on;
      ::g_source_modify_unix_fd(source, descriptor, on ? G_IO_IN : GIOCondition{});
    }
  };

  static gboolean dispatch(GSource*, GSourceFunc callback, gpointer turns) {
    return callback(turns);
  }
  static gboolean turn(gpointer data) {
    auto& turns = *static_cast<Turns*>(data);
    if (turns.in_turn) {  // its descriptor stays readable, so that the inner loop would never sleep
      turns.watch(false);
      return TRUE;
    }
    const std::shared_ptr<detail::DrivenReactor> state = turns.state;
    turns.in_turn = true;
    state->turn();
    turns.in_turn = false;
    if (!state->loop()) return FALSE;
    if (turns.quiet) turns.watch(true);
    return TRUE;
  }
  static void forget(gpointer turns) { delete static_cast<Turns*>(turns); }

  std::shared_ptr<detail::DrivenReactor> state_;
  GSource* source_ = nullptr;
};

}  // namespace evparallel
