// results.cpp - results and errors as values: passed on to functions, and as std::error_code.
#include "calling.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

namespace par = evparallel;
using namespace std::chrono_literals;
using par::Errc;
using par::Error;
using par::Result;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

Error closed() {
  return Error(Errc::closed, "it is closed").with_os_error(EPIPE);
}
template <class T>
Result<T> failed() {
  return closed();
}

// True if it holds the very error of failed(), with its details.
template <class T>
bool is_closed(const Result<T>& result) {
  return !result && result.error().code() == Errc::closed && result.error().os_error() == EPIPE &&
         std::string(result.error().what()) == "it is closed";
}

Result<int> half(int x) {
  if (x % 2 != 0) return Error(Errc::refused, "it is odd");
  return x / 2;
}

// Of a function that must not be called.
[[noreturn]] void never() {
  throw std::runtime_error("called");
}

using Owner = std::unique_ptr<int>;

struct Point {
  int x;
  int twice() const { return 2 * x; }
};

}  // namespace

// ---- what is asked of a Result ----

BOOST_AUTO_TEST_CASE(error_of_a_result_with_a_value_is_misuse) {
  const std::string text = "evparallel: error() was called on a Result that holds a value";
  BOOST_TEST(testing::misuse_of([] { Result<int>(1).error(); }) == text);
  BOOST_TEST(testing::misuse_of([] { Result<void>().error(); }) == text);
  BOOST_TEST((failed<int>().error().code() == Errc::closed));
  BOOST_TEST((failed<void>().error().code() == Errc::closed));
}

BOOST_AUTO_TEST_CASE(value_of_a_result_with_an_error_throws_it) {
  const auto is_thrown_by = [](auto f) {
    const std::optional<Error> error = testing::error_of(f);
    return error && error->code() == Errc::closed && error->os_error() == EPIPE;
  };
  BOOST_TEST(is_thrown_by([] { failed<int>().value(); }));
  BOOST_TEST(is_thrown_by([] { *failed<int>(); }));
  BOOST_TEST(is_thrown_by([] { failed<Point>()->twice(); }));
  BOOST_TEST(is_thrown_by([] { failed<void>().value(); }));
  BOOST_TEST(is_thrown_by([] { *failed<void>(); }));
}

BOOST_AUTO_TEST_CASE(value_or_gives_the_other_value_in_place_of_an_error) {
  BOOST_TEST(Result<std::string>("one").value_or("other") == "one");
  BOOST_TEST(failed<std::string>().value_or("other") == "other");
  BOOST_TEST(failed<std::string>().value_or({}) == "");
  const Result<long> constant = failed<long>();
  BOOST_TEST(constant.value_or(7) == 7);
  BOOST_TEST(*Result<Owner>(std::make_unique<int>(1)).value_or(nullptr) == 1);
  BOOST_TEST(!failed<Owner>().value_or(nullptr));
  static_assert(std::is_same_v<Result<int>::error_type, Error>);
  static_assert(std::is_same_v<Result<void>::error_type, Error>);
}

// ---- functions ----

BOOST_AUTO_TEST_CASE(map_calls_its_function_with_the_value) {
  const Result<int> two(2);
  const Result<std::string> text = two.map([](int x) { return std::to_string(x); });
  BOOST_TEST(text.value() == "2");
  const Result<double> number = two.map([](const int& x) { return x / 4.0; });
  BOOST_TEST(number.value() == 0.5);
  BOOST_TEST(Result<Point>(Point{3}).map(&Point::twice).value() == 6);
  BOOST_TEST(is_closed(failed<int>().map([](int) -> int { never(); })));
  BOOST_TEST(is_closed(failed<int>().map([](int) -> std::string { never(); })));
}

BOOST_AUTO_TEST_CASE(map_with_a_function_that_returns_nothing_gives_a_result_of_void) {
  int got = 0;
  const Result<void> nothing = Result<int>(2).map([&](int x) { got = x; });
  BOOST_TEST(nothing.has_value());
  BOOST_TEST(got == 2);
  BOOST_TEST(is_closed(failed<int>().map([](int) { never(); })));
}

BOOST_AUTO_TEST_CASE(and_then_gives_the_result_of_its_function) {
  const Result<int> twelve(12);
  BOOST_TEST(twelve.and_then(half).and_then(half).value() == 3);
  const Result<int> odd = twelve.and_then(half).and_then(half).and_then(half);
  BOOST_REQUIRE(!odd);
  BOOST_TEST((odd.error().code() == Errc::refused));
  const auto nothing = twelve.and_then([](int) { return Result<void>(); });
  static_assert(std::is_same_v<decltype(nothing), const Result<void>>);
  BOOST_TEST(nothing.has_value());
  BOOST_TEST(is_closed(failed<int>().and_then([](int) -> Result<std::string> { never(); })));
}

BOOST_AUTO_TEST_CASE(or_else_gives_the_result_of_its_function_in_place_of_an_error) {
  const auto zero_if_closed = [](const Error& error) -> Result<int> {
    if (error.code() == Errc::closed) return 0;
    return error;
  };
  BOOST_TEST(failed<int>().or_else(zero_if_closed).value() == 0);
  const Result<int> other(Error(Errc::deadline, "late"));
  BOOST_TEST((other.or_else(zero_if_closed).error().code() == Errc::deadline));
  BOOST_TEST(Result<int>(5).or_else([](const Error&) -> Result<int> { never(); }).value() == 5);
}

BOOST_AUTO_TEST_CASE(a_result_of_void_is_passed_on_as_other_results) {
  const Result<void> done;
  BOOST_TEST(done.map([] { return 7; }).value() == 7);
  int calls = 0;
  BOOST_TEST(done.map([&] { ++calls; }).has_value());
  BOOST_TEST(done.and_then([&] { return ++calls, Result<void>(); }).has_value());
  BOOST_TEST(calls == 2);
  BOOST_TEST(done.and_then([] { return half(4); }).value() == 2);
  BOOST_TEST(done.or_else([](const Error&) -> Result<void> { never(); }).has_value());
  BOOST_TEST(failed<void>().or_else([](Error) { return Result<void>(); }).has_value());
  BOOST_TEST(is_closed(failed<void>().map([]() -> int { never(); })));
  BOOST_TEST(is_closed(failed<void>().and_then([]() -> Result<int> { never(); })));
}

BOOST_AUTO_TEST_CASE(a_result_that_is_moved_passes_its_value_on_without_a_copy) {
  const auto owner = [](int x) { return Result<Owner>(std::make_unique<int>(x)); };
  Result<Owner> same = owner(1).map([](Owner p) { return p; });
  BOOST_TEST(**same == 1);
  same = std::move(same).and_then([](Owner&& p) { return Result<Owner>(std::move(p)); });
  BOOST_TEST(**same == 1);
  same = std::move(same).or_else([](const Error&) -> Result<Owner> { never(); });
  BOOST_TEST(**same == 1);
  // By reference where it is not moved.
  BOOST_TEST(same.map([](const Owner& p) { return *p; }).value() == 1);
  BOOST_TEST(**same == 1);
}

BOOST_AUTO_TEST_CASE(an_exception_of_the_function_of_a_result_reaches_the_caller) {
  BOOST_CHECK_THROW(Result<int>(1).map([](int) -> int { never(); }), std::runtime_error);
  BOOST_CHECK_THROW(Result<int>(1).and_then([](int) -> Result<int> { never(); }),
                    std::runtime_error);
  BOOST_CHECK_THROW(failed<int>().or_else([](const Error&) -> Result<int> { never(); }),
                    std::runtime_error);
}

BOOST_AUTO_TEST_CASE(the_answer_of_a_call_is_passed_on) {
  par::Reactor loop;
  auto square = par::run(loop, [](int x) {
    if (x < 0) throw std::domain_error("negative");
    return x * x;
  });
  const auto text_of = [&](int x) {
    return testing::result_of_call(loop, square, x)
        .and_then(half)
        .map([](int y) { return std::to_string(y); })
        .or_else([](const Error& error) -> Result<std::string> {
          return std::string(to_string(error.code()));
        })
        .value();
  };
  BOOST_TEST(text_of(4) == "8");
  BOOST_TEST(text_of(3) == "refused");
  BOOST_TEST(text_of(-1) == "remote_exception");
}

// ---- std::error_code ----

BOOST_AUTO_TEST_CASE(an_error_code_of_the_library_is_compared_with_its_enumerators) {
  const std::error_code code = Errc::deadline;
  BOOST_TEST((code == Errc::deadline));
  BOOST_TEST((Errc::deadline == code));
  BOOST_TEST((code != Errc::cancelled));
  BOOST_TEST((code == make_error_code(Errc::deadline)));
  BOOST_TEST(static_cast<bool>(code));
  BOOST_TEST(code.value() == static_cast<int>(Errc::deadline));
  BOOST_TEST((code.category() == par::error_category()));
  BOOST_TEST(std::string(par::error_category().name()) == "evparallel");
  // The same number in another category is another error.
  BOOST_TEST((std::error_code(static_cast<int>(Errc::deadline), std::generic_category()) != code));
}

namespace {

constexpr Errc all_codes[] = {Errc::no_snapshot,  Errc::refused,       Errc::unknown_function,
                              Errc::spawn_failed, Errc::overloaded,    Errc::remote_exception,
                              Errc::bad_message,  Errc::too_large,     Errc::child_exited,
                              Errc::child_killed, Errc::snapshot_lost, Errc::closed,
                              Errc::cancelled,    Errc::deadline,      Errc::unhealthy};

// The error of the system that means the same; none for most.
std::optional<std::errc> same_of_the_system(Errc code) {
  switch (code) {
    case Errc::overloaded: return std::errc::resource_unavailable_try_again;
    case Errc::bad_message: return std::errc::bad_message;
    case Errc::too_large: return std::errc::message_size;
    case Errc::closed: return std::errc::broken_pipe;
    case Errc::cancelled: return std::errc::operation_canceled;
    case Errc::deadline: return std::errc::timed_out;
    default: return std::nullopt;
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(each_error_code_has_a_message_of_its_own) {
  std::set<std::string> messages;
  for (const Errc code : all_codes) {
    const std::string text = make_error_code(code).message();
    BOOST_TEST(text != "unknown error");
    BOOST_TEST(messages.insert(text).second);
    BOOST_TEST(std::string(to_string(code)) != "unknown");
  }
  const int next = static_cast<int>(all_codes[std::size(all_codes) - 1]) + 1;
  BOOST_TEST(static_cast<int>(std::size(all_codes)) + 1 == next);
  BOOST_TEST(std::error_code(next, par::error_category()).message() == "unknown error");
  BOOST_TEST(std::error_code(0, par::error_category()).message() == "unknown error");
  BOOST_TEST(!std::error_code(0, par::error_category()));
}

BOOST_AUTO_TEST_CASE(an_error_code_equals_the_condition_of_the_system_that_means_the_same) {
  for (const Errc code : all_codes) {
    const std::error_code made = code;
    const std::optional<std::errc> same = same_of_the_system(code);
    const std::error_condition condition = made.default_error_condition();
    if (same) {
      BOOST_TEST((made == *same));
      BOOST_TEST((condition == make_error_condition(*same)));
    } else {
      BOOST_TEST((condition.category() == par::error_category()));
      BOOST_TEST(condition.value() == made.value());
    }
  }
}

BOOST_AUTO_TEST_CASE(the_error_of_a_call_is_thrown_and_printed_as_a_code_of_the_standard_library) {
  par::Reactor loop;
  par::Options options;
  options.grace = 0ms;
  auto endless = par::run(
      loop,
      [] {
        for (;;) ::pause();
      },
      options);
  std::error_code code;
  endless([&](const Result<void>& result) { code = result.error().code(); }).cancel();
  loop.run();
  BOOST_TEST((code == Errc::cancelled));
  BOOST_TEST((code == std::errc::operation_canceled));
  std::ostringstream printed;
  printed << code;
  BOOST_TEST(printed.str() == "evparallel:13");
  const std::system_error thrown(code, "the call");
  BOOST_TEST(std::string(thrown.what()) == "the call: the call was cancelled");
}
