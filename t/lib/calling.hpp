// calling.hpp - shared helpers for tests of the library: snapshots for one case, calls, a loop that runs until a
// condition is true.
#pragma once

#include "process.hpp"
#include "testing.hpp"

#include <evparallel/reactor.hpp>
#include <evparallel/run.hpp>
#include <evparallel/snapshot.hpp>

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <utility>

namespace testing {

// For testing_main_init() of a program whose cases all use the default snapshot.
inline void take_default_snapshot() {
  evparallel::init();
  expect_child(evparallel::default_snapshot().pid());
}

// Options for children of this snapshot.
inline evparallel::Options in(evparallel::Snapshot& snapshot) {
  evparallel::Options options;
  options.snapshot = &snapshot;
  return options;
}

// Waits until the snapshots that the case has given up have ended.  The next snapshot that is taken closes their
// sockets.
inline void close_abandoned(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const auto none_runs = [] {
    const std::vector<pid_t> left = children_of(::getpid());
    return std::none_of(left.begin(), left.end(), process_exists);
  };
  BOOST_TEST(eventually(none_runs, file, line));
  const evparallel::Snapshot next;
}

// Runs the loop until `condition` is true, even if nothing is pending.
template <class F>
bool loop_until(evparallel::Reactor& loop, F condition, const char* file = __builtin_FILE(),
                int line = __builtin_LINE()) {
  const auto turn = [&] {
    const evparallel::Timer moment = loop.after(std::chrono::milliseconds(1), [] {});
    loop.run_for(std::chrono::milliseconds(1));
  };
  turn();
  return wait_until(condition, turn, file, line);
}

// Runs at least `count` turns of the loop, and in each turn everything that is due: all events that can happen in this
// process have happened then, however slowly it runs.
inline void turn(evparallel::Reactor& loop, int count = 1) {
  for (int i = 0; i < count; ++i) {
    bool turned = false;
    const evparallel::Timer now = loop.after(std::chrono::nanoseconds(0), [&] { turned = true; });
    while (!turned) loop.run_for(std::chrono::milliseconds(1));
  }
}

// The result of a call of `f`; runs the loop until nothing is pending.
template <class Signature, class... Args>
auto result_of_call(evparallel::Reactor& loop, evparallel::Remote<Signature>& f, Args&&... args) {
  using Result = typename evparallel::Remote<Signature>::result_type;
  std::unique_ptr<Result> result;
  f(std::forward<Args>(args)...,
    [&](Result r) { result = std::make_unique<Result>(std::move(r)); });
  loop.run();
  if (!result) throw std::runtime_error("no answer");
  return std::move(*result);
}

// The same for a value.
template <class Signature, class... Args>
auto ask(evparallel::Reactor& loop, evparallel::Remote<Signature>& f, Args&&... args) {
  return result_of_call(loop, f, std::forward<Args>(args)...).value();
}

}  // namespace testing
