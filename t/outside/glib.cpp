// glib.cpp - a Reactor inside of a main loop of GLib.
#include "calling.hpp"
#include "driven_loop.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>
#include <evparallel/glib.hpp>

#include <optional>

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

BOOST_AUTO_TEST_CASE(a_callback_may_run_the_context_of_glib_where_the_reactor_waits) {
  Outer outer;
  par::GlibReactor loop(outer.get());
  bool in_callback = false;
  bool nested = false;
  bool sleeps = false;
  bool after = false;
  loop->post([&] {
    in_callback = true;
    loop->post([&] {
      nested = in_callback;
      after = true;
    });
    const auto is_quiet = [&] { return ::g_main_context_pending(outer.get()) == 0; };
    sleeps = testing::wait_until(is_quiet, [&] { outer.turn(); });
    in_callback = false;
  });
  BOOST_TEST(outer.until([&] { return after; }));
  BOOST_TEST(sleeps);
  BOOST_TEST(!nested);
}

BOOST_AUTO_TEST_CASE(a_callback_that_runs_the_context_of_glib_may_destroy_the_reactor_there) {
  Outer outer;
  auto loop = std::make_optional<par::GlibReactor>(outer.get());
  bool ended = false;
  (*loop)->post([&] {
    GSource* const end = ::g_idle_source_new();
    ::g_source_set_callback(
        end,
        [](gpointer inner) -> gboolean {
          static_cast<std::optional<par::GlibReactor>*>(inner)->reset();
          return FALSE;
        },
        &loop, nullptr);
    ::g_source_attach(end, outer.get());
    ::g_source_unref(end);
    ended = testing::wait_until([&] { return !loop; }, [&] { outer.turn(); });
  });
  BOOST_TEST(outer.until([&] { return ended; }));
}
