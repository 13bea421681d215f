// callables.cpp - every kind of callable that travels, with the public interface.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <cmath>
#include <memory>

namespace par = evparallel;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

int twice(int x) {
  return 2 * x;
}
int thrice(int x) noexcept {
  return 3 * x;
}
int seven() {
  return 7;
}
int seen = 0;
void see(int x) {
  seen = x;
}
int overloaded(int x) {
  return x + 1;
}
std::string overloaded(const std::string& s) {
  return s + "1";
}

struct Functor {
  int factor;
  int operator()(int x) const { return factor * x; }
};

// Calls f once and returns its answer.
template <class Inc, class F, class... Out>
Inc ask(F f, Out... out) {
  par::Reactor loop;
  auto remote = par::run(loop, std::move(f));
  return testing::ask(loop, remote, std::move(out)...);
}

}  // namespace

BOOST_AUTO_TEST_CASE(function_pointers_are_called) {
  BOOST_TEST(ask<int>(twice, 4) == 8);
  BOOST_TEST(ask<int>(&twice, 4) == 8);
  BOOST_TEST(ask<int>(thrice, 4) == 12);
  BOOST_TEST(ask<int>(seven) == 7);
}

BOOST_AUTO_TEST_CASE(lambdas_without_captures_are_called) {
  BOOST_TEST(ask<int>([](int x) { return x - 1; }, 4) == 3);
  BOOST_TEST(ask<int>([](int x) noexcept { return x - 1; }, 4) == 3);
  BOOST_TEST(ask<int>([](const int& x) { return x - 1; }, 4) == 3);
  BOOST_TEST(ask<int>([](int&& x) { return x - 1; }, 4) == 3);
  BOOST_TEST(ask<int>([] { return 5; }) == 5);
}

BOOST_AUTO_TEST_CASE(lambdas_with_plain_captures_are_called) {
  int a = 3;
  const double b = 0.5;
  const std::pair<int, int> pair(10, 20);
  const std::tuple<int, char> tuple(5, 'x');
  const std::array<int, 3> array{1, 2, 3};
  BOOST_TEST(ask<double>([a, b](int x) { return x * a + b; }, 2) == 6.5);
  BOOST_TEST(ask<int>(
                 [pair, tuple, array](int x) {
                   return x + pair.first + pair.second + std::get<0>(tuple) + array[2];
                 },
                 1) == 39);
  BOOST_TEST(ask<int>(Functor{6}, 7) == 42);
}

BOOST_AUTO_TEST_CASE(a_mutable_lambda_keeps_its_state_in_the_child) {
  par::Reactor loop;
  auto count = par::run(loop, [n = 0]() mutable { return ++n; });
  std::vector<int> answers;
  for (int i = 0; i < 3; ++i) count([&](par::Result<int> r) { answers.push_back(r.value()); });
  loop.run();
  BOOST_TEST((answers == std::vector<int>{1, 2, 3}));
}

BOOST_AUTO_TEST_CASE(a_function_without_a_result_is_called) {
  par::Reactor loop;
  auto remember = par::run(loop, see);
  auto nothing = par::run(loop, [] {});
  auto fails = par::run(loop, [](int) { throw std::runtime_error("no"); });
  int received = 0;
  remember(3, [&](par::Result<void> r) {
    r.value();
    received += r.has_value();
  });
  nothing([&](par::Result<void> r) { received += r.has_value(); });
  fails(1,
        [&](par::Result<void> r) { received += r.error().code() == par::Errc::remote_exception; });
  loop.run();
  BOOST_TEST(received == 3);
  BOOST_TEST(seen == 0);  // it was called in another process
}

BOOST_AUTO_TEST_CASE(fn_selects_overloads_and_generic_lambdas) {
  BOOST_TEST(ask<int>(par::fn<int(int)>(overloaded), 1) == 2);
  BOOST_TEST(ask<std::string>(par::fn<std::string(const std::string&)>(overloaded),
                              std::string("a")) == "a1");
  BOOST_TEST(ask<double>(par::fn<double(double)>(std::sqrt), 16.0) == 4.0);
  BOOST_TEST(ask<int>(par::fn<int(int)>([](auto x) { return x + 2; }), 1) == 3);
}

BOOST_AUTO_TEST_CASE(bind_sends_its_arguments_through_their_codecs) {
  const std::string text = "a string is no plain value";
  const std::vector<int> numbers{1, 2, 3};
  BOOST_TEST(ask<std::string>(par::bind(
                                  [](const std::string& s, const std::vector<int>& v, int x) {
                                    return s + std::to_string(v.at(static_cast<std::size_t>(x)));
                                  },
                                  text, numbers),
                              2) == text + "3");
  BOOST_TEST(ask<int>(par::bind(twice, 21)) == 42);
  BOOST_TEST(ask<int>(par::bind(twice), 21) == 42);
  BOOST_TEST(ask<std::string>(
                 par::bind(par::fn<std::string(const std::string&)>(overloaded), "x")) == "x1");
  std::size_t plain = 5;
  BOOST_TEST(ask<std::size_t>(par::bind([plain](const std::string& s) { return s.size() + plain; },
                                        "1234")) == 9u);
}

BOOST_AUTO_TEST_CASE(a_bound_argument_that_cannot_be_encoded_fails_at_once) {
  par::Reactor loop;
  BOOST_CHECK_THROW(
      static_cast<void>(par::run(loop, par::bind([](const std::string& s) { return s; }, "\xff"))),
      par::Error);
}

BOOST_AUTO_TEST_CASE(asynchronous_functions_of_every_form_are_called) {
  par::Reactor loop;
  auto with = par::run(loop, [](std::string s, par::Reply<std::size_t> reply) { reply(s.size()); });
  auto without = par::run(loop, [](par::Reply<int> reply) { reply(4); });
  auto nothing = par::run(loop, [](int, par::Reply<void> reply) { reply(); });
  auto bound =
      par::run(loop, par::bind([](int a, int b, par::Reply<int> reply) { reply(a - b); }, 10));
  int right = 0;
  with("abc", [&](par::Result<std::size_t> r) { right += r.value() == 3; });
  without([&](par::Result<int> r) { right += r.value() == 4; });
  nothing(1, [&](par::Result<void> r) { right += r.has_value(); });
  bound(3, [&](par::Result<int> r) { right += r.value() == 7; });
  loop.run();
  BOOST_TEST(right == 4);
}

BOOST_AUTO_TEST_CASE(a_process_takes_the_same_forms) {
  par::Reactor loop;
  int sum = 0;
  int step = 100;
  auto captured = par::process(loop, [step](par::Pipe<int, int> pipe) {
    pipe.send(step);
    pipe.close();
  });
  auto bound = par::process(loop, par::bind(
                                      [](const std::vector<int>& v, const par::Pipe<int, int>& p) {
                                        par::Pipe<int, int> pipe(p);
                                        for (const int x : v) pipe.send(x);
                                        pipe.close();
                                      },
                                      std::vector<int>{1, 2, 3}));
  for (auto* p : {&captured, &bound}) {
    p->on_message([&](int x) { sum += x; });
    p->close();
  }
  loop.run();
  BOOST_TEST(sum == 106);
}

BOOST_AUTO_TEST_CASE(references_to_the_stack_are_refused) {
  par::Reactor loop;
  int local = 41;
  const auto says_what_to_do = [](const std::logic_error& error) {
    const std::string text = error.what();
    return text.find("capture by value") != std::string::npos &&
           text.find("bind(") != std::string::npos;
  };
  BOOST_CHECK_EXCEPTION(static_cast<void>(par::run(loop, [&local](int x) { return x + local; })),
                        std::logic_error, says_what_to_do);
  BOOST_CHECK_EXCEPTION(static_cast<void>(par::run(loop, [p = &local](int x) { return x + *p; })),
                        std::logic_error, says_what_to_do);
  BOOST_CHECK_EXCEPTION(
      static_cast<void>(par::run(loop, par::bind([&local](int x) { return x + local; }, 1))),
      std::logic_error, says_what_to_do);
  BOOST_CHECK_EXCEPTION(
      static_cast<void>(par::process(loop, [&local](par::Pipe<int, int>) { ++local; })),
      std::logic_error, says_what_to_do);
  // as_is() declares that the child does not use the address.
  BOOST_TEST(ask<bool>(par::as_is([p = &local](int) { return p != nullptr; }), 1));
  BOOST_TEST(ask<bool>(par::as_is(par::bind([p = &local](int) { return p != nullptr; }, 1))));
  // A pointer to static or heap memory from before the snapshot gives the value at the snapshot.
  BOOST_TEST(ask<int>([p = &seen](int x) { return *p + x; }, 1) == 1);
}

BOOST_AUTO_TEST_CASE(move_only_arguments_travel_with_their_own_codec) {
  struct Codec {
    static void put(par::Writer& out, const std::unique_ptr<int>& p) {
      par::RawIo<int>::put(out, *p);
    }
    static std::unique_ptr<int> get(par::Reader& in) {
      return std::make_unique<int>(par::RawIo<int>::get(in));
    }
  };
  par::Reactor loop;
  auto f = par::run<Codec, Codec>(loop, [](std::unique_ptr<int> p) {
    ++*p;
    return p;
  });
  int answer = 0;
  f(std::make_unique<int>(1), [&](par::Result<std::unique_ptr<int>> r) { answer = **r; });
  loop.run();
  BOOST_TEST(answer == 2);
}
