// uv.cpp - a Reactor inside of a loop of libuv.
#include "calling.hpp"
#include "driven_loop.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>
#include <evparallel/uv.hpp>

namespace par = evparallel;
using namespace std::chrono_literals;

void testing_main_init() {
  testing::take_default_snapshot();
  // The first loop opens descriptors for the rest of the process.
  uv_loop_t first;
  ::uv_loop_init(&first);
  ::uv_loop_close(&first);
}

namespace {

class Outer {
public:
  Outer() {
    ::uv_loop_init(&loop_);
    ::uv_timer_init(&loop_, &clock_);
  }
  Outer(const Outer&) = delete;
  Outer& operator=(const Outer&) = delete;
  ~Outer() {
    ::uv_close(reinterpret_cast<uv_handle_t*>(&clock_), nullptr);
    ::uv_run(&loop_, UV_RUN_DEFAULT);  // returns: nothing holds it
    BOOST_TEST(::uv_loop_close(&loop_) == 0);
  }

  uv_loop_t* get() { return &loop_; }
  void turn() { ::uv_run(&loop_, UV_RUN_NOWAIT); }
  template <class F>
  bool until(F done, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    // A timer that ends each wait of the loop, for the limit of the case.
    ::uv_timer_start(
        &clock_, [](uv_timer_t*) {}, 1000, 1000);
    const bool right = testing::wait_until(
        done, [&] { ::uv_run(&loop_, UV_RUN_ONCE); }, file, line);
    ::uv_timer_stop(&clock_);
    return right;
  }
  // After a turn.
  bool is_ready(int fd) {
    turn();
    pollfd one{fd, POLLIN, 0};
    return ::poll(&one, 1, 0) > 0;
  }

private:
  uv_loop_t loop_{};
  uv_timer_t clock_{};
};

using Driven = testing::DrivenLoop<par::UvReactor, Outer>;

}  // namespace

BOOST_AUTO_TEST_CASE(calls_are_answered_in_a_loop_of_libuv) {
  Driven::answers_calls();
}

BOOST_AUTO_TEST_CASE(timers_and_posts_come_in_a_loop_of_libuv) {
  Driven::calls_timers_and_posts();
}

BOOST_AUTO_TEST_CASE(an_exception_in_a_loop_of_libuv_reaches_on_exception) {
  Driven::passes_exceptions_on();
}

BOOST_AUTO_TEST_CASE(an_idle_reactor_lets_a_loop_of_libuv_sleep) {
  Driven::sleeps_when_idle();
}

BOOST_AUTO_TEST_CASE(a_reactor_in_a_loop_of_libuv_may_be_moved_and_closes_its_descriptors) {
  Driven::may_be_moved_and_closes_its_descriptors();
}
