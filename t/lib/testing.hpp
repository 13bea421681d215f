// testing.hpp - the base of every test program: Boost.Test, and checks of processes, descriptors and time.
#pragma once

// Without a library of Boost.Test that has the C++ library of this build, main.cpp compiles it.
#ifdef EVPARALLEL_TEST_HEADERS_ONLY
#define BOOST_TEST_ALTERNATIVE_INIT_API  // as with the library
#elif !defined BOOST_TEST_DYN_LINK
#define BOOST_TEST_DYN_LINK
#endif
#define BOOST_TEST_NO_MAIN  // main.cpp has one: Boost has no TAP output
#include <boost/test/unit_test.hpp>

#include <poll.h>
#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <utility>

// main calls this first, before Boost starts: the place to take a snapshot. Programs that need it define it.
void testing_main_init();

namespace testing {

// The open descriptors of this process.
std::size_t count_descriptors();

// A child that may outlive the current case (a snapshot). Its own children may not.
void expect_child(pid_t pid);
void forget_child(pid_t pid);

// The current case may leave `count` more descriptors open than it found.
void allow_descriptors(int count);

// The file of a library that the tests load or preload: t/lib/.libs/NAME of the build.
std::string library_path(const std::string& name);

// In an audit build LeakSanitizer checks each child at its end, and ends it with a special status if it has leaked.
bool watched_for_leaks();
// The same for a process that a case has forked and that is about to end.
void look_for_leaks();
// The number of processes that a sanitizer has ended in this case: children of the test program and all others that
// were forked from it. Each is a failure, unless it was allowed.
int sanitizer_reports();
void allow_reports(int count);

// The current case may take `seconds`, counted from now: by default, 300 seconds from its beginning, well above the
// patience of a wait, whose report has more details.
void limit(unsigned seconds = 300);

// The time limit of a wait for an event that must happen: one limit for all waits, since none asserts how fast
// something is. TEST_TIME_SCALE in the environment stretches it, and limit(), too.
std::chrono::steady_clock::duration patience();
double time_scale();

// A seed for the random numbers of the current case: `usual`, or TEST_SEED of the environment. It is reported if the
// case fails.
std::uint32_t seed(std::uint32_t usual);

// For a case that shows guarantees of evparallel(7) or promises of evparallel_security(7), by their numbers there:
// *testing::guarantee("1.1 A.2"). The cases of one number: --run_test=@1.1
class guarantee : public boost::unit_test::decorator::base {
public:
  explicit guarantee(std::string numbers) : numbers_(std::move(numbers)) {}

private:
  void apply(boost::unit_test::test_unit& unit) override {
    std::istringstream numbers(numbers_);
    for (std::string number; numbers >> number;) unit.add_label(number);
  }
  boost::unit_test::decorator::base_ptr clone() const override {
    return boost::unit_test::decorator::base_ptr(new guarantee(numbers_));
  }
  std::string numbers_;
};

// The current case cannot run here. Shown by name, with the reason; the caller returns then.
void skip(const std::string& reason);

// Reports a wait that timed out: the current case fails there. In a process forked by it this is only reported.
void ran_out(const char* file, int line);

// Waits until `condition()` is true, with a `turn()` before each further check; false if it never was.
template <class F, class G>
bool wait_until(F condition, G turn, const char* file = __builtin_FILE(),
                int line = __builtin_LINE()) {
  const auto end = std::chrono::steady_clock::now() + patience();
  for (;;) {
    const bool last = std::chrono::steady_clock::now() >= end;
    if (condition()) return true;
    if (last) {
      ran_out(file, line);
      return false;
    }
    turn();
  }
}

// The same, with a check about once a millisecond.
template <class F>
bool eventually(F condition, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return wait_until(
      condition, [] { ::poll(nullptr, 0, 1); }, file, line);
}

// Waits for one of these poll(2) events.
bool is_ready(int fd, short events = POLLIN, const char* file = __builtin_FILE(),
              int line = __builtin_LINE());

// Whether this is an audit build: some limits of memory cannot be tested with its sanitizer.
#if defined __SANITIZE_ADDRESS__
constexpr bool sanitized = true;
#elif defined __has_feature
#if __has_feature(address_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif

// Whether the kernel has no memfd_create(2).
bool no_memfd();

// Whether qemu-user simulates the processor.
bool emulated();

// For tests that freeze memory. True: this test cannot run, and is shown as skipped; the caller returns then.
inline bool skipped_unfrozen() {
  if (no_memfd()) skip("no memfd");
  if (sanitized) skip("memory of a sanitizer is not frozen");
  if (emulated()) skip("under qemu-user no memory is frozen");
  return no_memfd() || sanitized || emulated();
}

}  // namespace testing
