// uv.cpp - a Reactor inside of a loop of libuv.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>
#include <evparallel/uv.hpp>

#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

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

int plus_one(int x) {
  return x + 1;
}

using Inner = par::UvReactor;

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

}  // namespace

BOOST_AUTO_TEST_CASE(calls_are_answered_in_a_loop_of_libuv) {
  Outer outer;
  std::optional<Inner> loop(std::in_place, outer.get());
  auto f = par::run(**loop, plus_one);
  auto pool = par::pool(**loop, plus_one);
  constexpr int many = 1000;
  long sum = 0;
  int answers = 0;
  const auto count = [&](par::Result<int> r) {
    sum += r.value();
    if (++answers == 2 * many) loop.reset();  // in its own callback
  };
  for (int i = 0; i < many; ++i) {
    f(i, count);
    pool.submit(i, count);
  }
  BOOST_TEST(outer.until([&] { return answers == 2 * many; }));
  BOOST_TEST(sum == long{many} * (many + 1));
}

BOOST_AUTO_TEST_CASE(timers_and_posts_come_in_a_loop_of_libuv) {
  Outer outer;
  Inner loop(outer.get());
  bool early = false;
  bool posted = false;
  const auto start = std::chrono::steady_clock::now();
  const par::Timer timer = loop->after(20ms, [&] {
    early = std::chrono::steady_clock::now() - start < 20ms;
    std::thread([&] { loop->post([&] { posted = true; }); }).join();
  });
  BOOST_TEST(outer.until([&] { return posted; }));
  BOOST_TEST(!early);
}

BOOST_AUTO_TEST_CASE(an_exception_in_a_loop_of_libuv_reaches_on_exception) {
  Outer outer;
  Inner loop(outer.get());
  std::string order;
  const auto name = [&](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const std::runtime_error& error) {
      order += error.what();
    }
  };
  loop.on_exception([&](std::exception_ptr thrown) {
    name(thrown);
    loop.on_exception([&](std::exception_ptr next) {  // replaces itself
      order += "second ";
      name(next);
    });
  });
  const par::Timer first = loop->after(0ns, [] { throw std::runtime_error("a"); });
  const par::Timer second = loop->after(0ns, [] { throw std::runtime_error("b"); });
  const par::Timer third = loop->after(0ns, [&] { order += " c"; });
  BOOST_TEST(outer.until([&] { return order == "asecond b c"; }));
}

BOOST_AUTO_TEST_CASE(an_idle_reactor_lets_a_loop_of_libuv_sleep) {
  Outer outer;
  Inner loop(outer.get());
  auto f = par::run(*loop, plus_one);
  bool answered = false;
  f(1, [&](par::Result<int>) { answered = true; });
  BOOST_TEST(outer.until([&] { return answered; }));
  BOOST_TEST(testing::eventually([&] { return !outer.is_ready(loop->fd()); }));
}

BOOST_AUTO_TEST_CASE(a_reactor_in_a_loop_of_libuv_may_be_moved_and_closes_its_descriptors) {
  Outer outer;
  { const Inner first(outer.get()); }
  outer.turn();
  const std::size_t before = testing::count_descriptors();
  {
    Inner first(outer.get());
    Inner second(outer.get());
    bool called = false;
    second->post([&] { called = true; });
    first = std::move(second);
    const Inner moved = std::move(first);
    BOOST_TEST(outer.until([&] { return called; }));
  }
  BOOST_TEST(testing::count_descriptors() == before);
}
