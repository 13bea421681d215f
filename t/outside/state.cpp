// state.cpp - what a child makes once: a state for its function, and a start before it.
#include "calling.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using testing::has;
using namespace std::chrono_literals;

namespace {

// Memory that the children of a case share with it.
struct Shared {
  std::atomic<int> made{0};
  std::atomic<int> destroyed{0};
  std::atomic<int> failures_left{0};
};
Shared* shared = nullptr;

// Can be neither copied nor moved.
class Model {
public:
  explicit Model(std::string name) : name_(std::move(name)) { ++shared->made; }
  ~Model() { ++shared->destroyed; }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  std::string next(const std::string& word) {
    return name_ + ":" + word + std::to_string(++calls_) + ":" + std::to_string(::getpid());
  }
  int calls() const noexcept { return calls_; }

private:
  std::string name_;
  int calls_ = 0;
};

std::string call_model(Model& model, const std::string& word) {
  return model.next(word);
}

void reset() {
  shared->made = 0;
  shared->destroyed = 0;
  shared->failures_left = 0;
}

}  // namespace

void testing_main_init() {
  shared = &testing::shared<Shared>();
  testing::take_default_snapshot();
}

// ---- a state ----

BOOST_AUTO_TEST_CASE(a_state_is_made_once_and_lasts_from_call_to_call) {
  reset();
  par::Reactor loop;
  {
    auto f = par::run(loop, par::with_state([] { return Model("m"); }, &call_model));
    const std::string first = f.wait("a").value();
    const std::string second = f.wait("b").value();
    BOOST_TEST(has(first, "m:a1:"), first);
    BOOST_TEST(has(second, "m:b2:"), second);
    f.close();
    for (int turns = 0; turns < 30000 && shared->destroyed == 0; ++turns) loop.run_for(1ms);
  }
  BOOST_TEST(shared->made == 1);
  BOOST_TEST(shared->destroyed == 1);
}

BOOST_AUTO_TEST_CASE(each_child_of_a_pool_makes_a_state_of_its_own) {
  reset();
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = options.min_workers = 3;
  auto pool = par::pool(
      loop,
      par::with_state(
          par::bind([](const std::string& name) { return Model(name); }, std::string(100, 'n')),
          [](Model& model, int) {
            model.next("x");
            return std::vector<int>{model.calls(), ::getpid()};
          }),
      options);
  std::vector<int> items(1000);
  std::map<int, std::set<int>> calls;
  for (const auto& answer : par::values(pool.wait_map(items)))
    BOOST_TEST(calls[answer.at(1)].insert(answer.at(0)).second);
  std::size_t all = 0;
  for (const auto& [pid, numbers] : calls) {
    BOOST_TEST(*numbers.rbegin() == static_cast<int>(numbers.size()), "of " << pid);
    all += numbers.size();
  }
  BOOST_TEST(all == items.size());
  BOOST_TEST(shared->made >= static_cast<int>(calls.size()));
}

BOOST_AUTO_TEST_CASE(a_function_with_a_state_may_have_any_shape) {
  par::Reactor loop;
  auto none =
      par::run(loop, par::with_state([] { return 10; }, [](int& state) { return ++state; }));
  BOOST_TEST(none.wait().value() == 11);
  BOOST_TEST(none.wait().value() == 12);
  auto several =
      par::run(loop, par::with_state([] { return std::string("s"); },
                                     [](const std::string& state, int a, const std::string& b) {
                                       return state + std::to_string(a) + b;
                                     }));
  BOOST_TEST(several.wait(1, "b").value() == "s1b");
  auto later = par::run(loop, par::with_state([] { return 1; },
                                              [](int& state, int a, const par::Reply<int>& reply) {
                                                reply(state += a);
                                              }));
  BOOST_TEST(later.wait(2).value() == 3);
  BOOST_TEST(later.wait(2).value() == 5);
  auto owner =
      par::run(loop, par::with_state([] { return std::make_unique<int>(5); },
                                     [](std::unique_ptr<int>& state) { return ++*state; }));
  BOOST_TEST(owner.wait().value() == 6);
}

BOOST_AUTO_TEST_CASE(a_child_that_replaces_another_makes_a_new_state) {
  reset();
  par::Reactor loop;
  par::Options options;
  options.retries = 1;
  auto f = par::run(loop, par::with_state([] { return Model("m"); },
                                          [](Model& model, const std::string& word) {
                                            if (word == "die") ::raise(SIGKILL);
                                            return model.next(word);
                                          }));
  BOOST_TEST(has(f.wait("a").value(), "a1"));
  BOOST_TEST((f.wait("die").error().code() == par::Errc::child_killed));
  BOOST_TEST(has(f.wait("b").value(), "b1"));
  BOOST_TEST(shared->made == 2);
}

BOOST_AUTO_TEST_CASE(a_state_that_cannot_be_made_fails_the_start) {
  reset();
  par::Reactor loop;
  const auto fail = []() -> int {
    if (shared->failures_left-- > 0) throw std::runtime_error("no model file");
    return 1;
  };
  const auto call = [](int& state, int x) { return state + x; };
  shared->failures_left = 1;
  auto f = par::run(loop, par::with_state(fail, call));
  const par::Result<int> failed = f.wait(1);
  BOOST_REQUIRE(!failed);
  BOOST_TEST((failed.error().code() == par::Errc::remote_exception));
  BOOST_TEST(has(failed.error().what(), "no model file"), failed.error().what());
  BOOST_TEST(f.wait(1).value() == 2);

  shared->failures_left = 1000;
  par::PoolOptions options;
  options.workers = 1;
  options.max_failed_starts = 2;
  auto pool = par::pool(loop, par::with_state(fail, call), options);
  const par::Result<int> unhealthy = pool.wait(1);
  BOOST_REQUIRE(!unhealthy);
  BOOST_TEST((unhealthy.error().code() == par::Errc::unhealthy));
  BOOST_TEST(has(unhealthy.error().what(), "no model file"), unhealthy.error().what());
}

BOOST_AUTO_TEST_CASE(a_state_that_is_never_ready_reaches_the_limit_of_a_start) {
  par::Reactor loop;
  par::Options options;
  options.start_timeout = 3s;
  options.grace = 0ms;
  auto f = par::run(loop,
                    par::with_state(
                        []() -> int {
                          for (;;) ::pause();
                        },
                        [](int& state, int x) { return state + x; }),
                    options);
  const par::Result<int> failed = f.wait(1);
  BOOST_REQUIRE(!failed);
  BOOST_REQUIRE(failed.error().exit());
  BOOST_TEST((failed.error().exit()->cause == par::Cause::start_timeout));
}

// ---- a start ----

BOOST_AUTO_TEST_CASE(a_start_runs_once_before_a_remote_function) {
  par::Reactor loop;
  par::Options options;
  options.on_start =
      par::bind([](const std::string& value) { ::setenv("START", value.c_str(), 1); }, "here");
  auto f = par::run(
      loop,
      [](int x) {
        const char* const value = ::getenv("START");
        return (value ? value : "nothing") + std::to_string(x);
      },
      options);
  BOOST_TEST(f.wait(1).value() == "here1");
  BOOST_TEST(f.wait(2).value() == "here2");
}

BOOST_AUTO_TEST_CASE(a_start_runs_before_the_function_of_a_process) {
  par::Reactor loop;
  par::Options options;
  static int started = 0;
  options.on_start = [] { started = 5; };
  auto process = par::process(
      loop, [](par::Pipe<int, int> pipe) { pipe.send(started); }, options);
  int received = 0;
  process.on_message([&](int x) { received = x; });
  process.close();
  loop.run();
  BOOST_TEST(received == 5);
  BOOST_TEST(started == 0);
}

BOOST_AUTO_TEST_CASE(a_start_goes_before_the_maker_of_a_state) {
  par::Reactor loop;
  static std::string order;
  par::PoolOptions options;
  options.workers = 1;
  options.child.on_start = [] { order += "start "; };
  auto pool = par::pool(loop,
                        par::with_state(
                            [] {
                              order += "make ";
                              return 1;
                            },
                            [](int&) { return order += "call "; }),
                        options);
  BOOST_TEST(pool.wait().value() == "start make call ");
}

BOOST_AUTO_TEST_CASE(a_start_that_throws_fails_the_call_and_the_next_child_tries_again) {
  reset();
  shared->failures_left = 1;
  par::Reactor loop;
  par::Options options;
  options.on_start = [] {
    if (shared->failures_left-- > 0) throw std::runtime_error("no licence");
  };
  auto f = par::run(
      loop, [](int x) { return x; }, options);
  const par::Result<int> failed = f.wait(1);
  BOOST_REQUIRE(!failed);
  BOOST_TEST(has(failed.error().what(), "no licence"), failed.error().what());
  BOOST_TEST(f.wait(2).value() == 2);
}

BOOST_AUTO_TEST_CASE(remotes_with_different_starts_are_not_mixed_up) {
  par::Reactor loop;
  static int number = 0;
  std::vector<par::Remote<int()>> all;
  for (int i = 1; i <= 3; ++i) {
    par::Options options;
    options.on_start = par::bind([](int x) { number = x; }, i);
    all.push_back(par::run(
        loop, [] { return number; }, options));
  }
  all.push_back(par::run(loop, [] { return number; }));
  std::vector<int> answers;
  for (auto& f : all) answers.push_back(f.wait().value());
  BOOST_TEST(answers == (std::vector<int>{1, 2, 3, 0}), boost::test_tools::per_element());
}
