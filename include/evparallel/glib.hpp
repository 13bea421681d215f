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
// context.  Move-only; a callback may destroy it.
class GlibReactor {
public:
  // nullptr: the default context.  Fails: std::system_error.
  explicit GlibReactor(GMainContext* context = nullptr)
      : state_(std::make_shared<detail::DrivenReactor>()) {
    auto kept = std::make_unique<std::shared_ptr<detail::DrivenReactor>>(state_);
    const int fd = state_->loop()->fd();
    static GSourceFuncs functions{nullptr, nullptr, &dispatch, nullptr, nullptr, nullptr};
    source_ = ::g_source_new(&functions, sizeof(GSource));
    ::g_source_set_callback(source_, &turn, kept.release(), &forget);
    ::g_source_add_unix_fd(source_, fd, G_IO_IN);
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
  static gboolean dispatch(GSource*, GSourceFunc callback, gpointer state) {
    return callback(state);
  }
  static gboolean turn(gpointer kept) {
    const auto state = *static_cast<std::shared_ptr<detail::DrivenReactor>*>(kept);
    state->turn();
    return state->loop() ? TRUE : FALSE;
  }
  static void forget(gpointer kept) {
    delete static_cast<std::shared_ptr<detail::DrivenReactor>*>(kept);
  }

  std::shared_ptr<detail::DrivenReactor> state_;
  GSource* source_ = nullptr;
};

}  // namespace evparallel
