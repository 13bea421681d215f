// errors.hpp - expected errors of cases: whether there is one, and its text.
#pragma once

#include "testing.hpp"

#include <evparallel/error.hpp>

#include <optional>
#include <stdexcept>
#include <string>

namespace testing {

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The Error that f throws.
template <class F>
std::optional<evparallel::Error> error_of(F f) {
  try {
    f();
  } catch (const evparallel::Error& error) {
    return error;
  }
  return std::nullopt;
}

// The text of the std::logic_error that f throws; empty if it throws nothing.
template <class F>
std::string misuse_of(F f) {
  try {
    f();
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return {};
}

// The text of the Error{bad_message} that f must throw.
template <class F>
std::string bad_message(F f) {
  const std::optional<evparallel::Error> error = error_of(f);
  BOOST_TEST(error.has_value());
  if (!error) return {};
  BOOST_TEST((error->code() == evparallel::Errc::bad_message));
  BOOST_TEST(error->what() != "");
  return error->what();
}

}  // namespace testing
