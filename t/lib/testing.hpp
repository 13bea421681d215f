// testing.hpp - what every test program is written with: Boost.Test, and watches over processes, descriptors, time.
#pragma once

#ifndef BOOST_TEST_DYN_LINK
#define BOOST_TEST_DYN_LINK
#endif
#define BOOST_TEST_NO_MAIN  // main.cpp has one: Boost cannot speak TAP
#include <boost/test/unit_test.hpp>

#include <poll.h>
#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <utility>

// main calls this first, before Boost starts: the place to take a snapshot. Defined by the programs that need it.
void testing_main_init();

namespace testing {

// The open descriptors of this process.
std::size_t count_descriptors();

// A child that may outlive the case that is running (a snapshot). Its own children may not.
void expect_child(pid_t pid);
void forget_child(pid_t pid);

// The case that is running may leave `count` more descriptors open than it found.
void allow_descriptors(int count);

// The file of a library that the tests load or preload: t/lib/.libs/NAME of the build.
std::string library_path(const std::string& name);

// In an audit build LeakSanitizer looks at each child when it ends, and ends it with a status of its own if it has
// leaked.
bool watched_for_leaks();
// The same for a process that a case has forked and that is about to end.
void look_for_leaks();
// How many processes a sanitizer has ended in this case, the test program's own children and all others that were
// forked from it. Each is one too many, unless it was allowed.
int sanitizer_reports();
void allow_reports(int count);

// The case that is running may take so long, counted from now: without it as long as this from its beginning, well above
// the patience of a wait, which says more.
void limit(unsigned seconds = 300);

// How long a wait for what must happen may take: one limit for all of them, since none asserts how fast something is.
// The environment's TEST_TIME_SCALE stretches it, and limit(), too.
std::chrono::steady_clock::duration patience();
double time_scale();

// A number from which the case that is running makes its random ones: `usual`, or the environment's TEST_SEED.  It is
// told if the case fails.
std::uint32_t seed(std::uint32_t usual);

// On a case that shows guarantees of evparallel(7), by their numbers there: *testing::guarantee("1.1 1.2").  Those of
// one number: --run_test=@1.1
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

// The case that is running cannot run here. Shown by name, with the reason; return after it.
void skip(const std::string& reason);

// A wait that was in vain: the case that is running fails there.  In a process forked by it this is only told.
void ran_out(const char* file, int line);

// Waits until `condition()` holds, with a `turn()` before each further look; false if it never did.
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

// The same, looking about once a millisecond.
template <class F>
bool eventually(F condition, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return wait_until(
      condition, [] { ::poll(nullptr, 0, 1); }, file, line);
}

// Waits until one of these poll(2) events is there.
bool is_ready(int fd, short events = POLLIN, const char* file = __builtin_FILE(),
              int line = __builtin_LINE());

// Whether this is an audit build: some limits of memory cannot be tried under its sanitizer.
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

// For tests that freeze memory.  True: this one cannot run, and is shown as skipped; return after it.
inline bool skipped_unfrozen() {
  if (no_memfd()) skip("no memfd");
  if (sanitized) skip("memory of a sanitizer is not frozen");
  return no_memfd() || sanitized;
}

}  // namespace testing
