// glib.cpp - a Reactor inside of a main loop of GLib.
#include "calling.hpp"
#include "driven_loop.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>
#include <evparallel/glib.hpp>

namespace par = evparallel;
using namespace std::chrono_literals;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

class Outer {
public:
  Outer() : context_(::g_main_context_new()) {}
  Outer(const Outer&) = delete;
  Outer& operator=(const Outer&) = delete;
  ~Outer() { ::g_main_context_unref(context_); }

  GMainContext* get() const { return context_; }
  void turn() { ::g_main_context_iteration(context_, FALSE); }
  template <class F>
  bool until(F done, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    // A source that ends each wait of the context, for the limit of the case.
    GSource* const clock = ::g_timeout_source_new(1000);
    ::g_source_set_callback(
        clock, [](gpointer) -> gboolean { return TRUE; }, nullptr, nullptr);
    ::g_source_attach(clock, context_);
    const bool right = testing::wait_until(
        done, [&] { ::g_main_context_iteration(context_, TRUE); }, file, line);
    ::g_source_destroy(clock);
    ::g_source_unref(clock);
    return right;
  }
  // After a turn.
  bool is_ready(int) {
    turn();
    return ::g_main_context_pending(context_) != 0;
  }

private:
  GMainContext* context_;
};

using Driven = testing::DrivenLoop<par::GlibReactor, Outer>;

}  // namespace

BOOST_AUTO_TEST_CASE(calls_are_answered_in_a_loop_of_glib) {
  Driven::answers_calls();
}

BOOST_AUTO_TEST_CASE(timers_and_posts_come_in_a_loop_of_glib) {
  Driven::calls_timers_and_posts();
}

BOOST_AUTO_TEST_CASE(an_exception_in_a_loop_of_glib_reaches_on_exception) {
  Driven::passes_exceptions_on();
}

BOOST_AUTO_TEST_CASE(an_idle_reactor_lets_a_loop_of_glib_sleep) {
  Driven::sleeps_when_idle();
}

BOOST_AUTO_TEST_CASE(a_reactor_in_a_loop_of_glib_may_be_moved_and_closes_its_descriptors) {
  Driven::may_be_moved_and_closes_its_descriptors();
}
