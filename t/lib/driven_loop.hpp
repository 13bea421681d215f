// driven_loop.hpp - the cases of a Reactor whose turns a loop written in C makes.
#pragma once

#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <chrono>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

namespace testing {

inline int plus_one(int x) {
  return x + 1;
}

// `Inner` is the Reactor, made with Outer::get() of the other loop.  The Outer of a test also has turn(), until(done),
// and is_ready(fd): there is something to do.
template <class Inner, class Outer>
struct DrivenLoop {
  static void answers_calls() {
    Outer outer;
    std::optional<Inner> loop(std::in_place, outer.get());
    auto f = evparallel::run(**loop, plus_one);
    auto pool = evparallel::pool(**loop, plus_one);
    constexpr int many = 1000;
    long sum = 0;
    int answers = 0;
    const auto count = [&](evparallel::Result<int> r) {
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

  static void calls_timers_and_posts() {
    Outer outer;
    Inner loop(outer.get());
    bool early = false;
    bool posted = false;
    const auto start = std::chrono::steady_clock::now();
    const evparallel::Timer timer = loop->after(std::chrono::milliseconds(20), [&] {
      early = std::chrono::steady_clock::now() - start < std::chrono::milliseconds(20);
      std::thread([&] { loop->post([&] { posted = true; }); }).join();
    });
    BOOST_TEST(outer.until([&] { return posted; }));
    BOOST_TEST(!early);
  }

  static void passes_exceptions_on() {
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
    const evparallel::Timer first =
        loop->after(std::chrono::nanoseconds(0), [] { throw std::runtime_error("a"); });
    const evparallel::Timer second =
        loop->after(std::chrono::nanoseconds(0), [] { throw std::runtime_error("b"); });
    const evparallel::Timer third =
        loop->after(std::chrono::nanoseconds(0), [&] { order += " c"; });
    BOOST_TEST(outer.until([&] { return order == "asecond b c"; }));
  }

  static void sleeps_when_idle() {
    Outer outer;
    Inner loop(outer.get());
    auto f = evparallel::run(*loop, plus_one);
    bool answered = false;
    f(1, [&](evparallel::Result<int>) { answered = true; });
    BOOST_TEST(outer.until([&] { return answered; }));
    BOOST_TEST(eventually([&] { return !outer.is_ready(loop->fd()); }));
  }

  static void may_be_moved_and_closes_its_descriptors() {
    Outer outer;
    { const Inner first(outer.get()); }
    outer.turn();
    const std::size_t before = count_descriptors();
    {
      Inner first(outer.get());
      Inner second(outer.get());
      bool called = false;
      second->post([&] { called = true; });
      first = std::move(second);
      const Inner moved = std::move(first);
      BOOST_TEST(outer.until([&] { return called; }));
    }
    BOOST_TEST(count_descriptors() == before);
  }
};

}  // namespace testing
