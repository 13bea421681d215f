// glib.cpp - a Reactor inside of a main loop of GLib.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>
#include <evparallel/glib.hpp>

#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

namespace par = evparallel;
using namespace std::chrono_literals;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

int plus_one(int x) {
  return x + 1;
}

using Inner = par::GlibReactor;

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

}  // namespace

BOOST_AUTO_TEST_CASE(calls_are_answered_in_a_loop_of_glib) {
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

BOOST_AUTO_TEST_CASE(timers_and_posts_come_in_a_loop_of_glib) {
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

BOOST_AUTO_TEST_CASE(an_exception_in_a_loop_of_glib_reaches_on_exception) {
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

BOOST_AUTO_TEST_CASE(an_idle_reactor_lets_a_loop_of_glib_sleep) {
  Outer outer;
  Inner loop(outer.get());
  auto f = par::run(*loop, plus_one);
  bool answered = false;
  f(1, [&](par::Result<int>) { answered = true; });
  BOOST_TEST(outer.until([&] { return answered; }));
  BOOST_TEST(testing::eventually([&] { return !outer.is_ready(loop->fd()); }));
}

BOOST_AUTO_TEST_CASE(a_reactor_in_a_loop_of_glib_may_be_moved_and_closes_its_descriptors) {
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
