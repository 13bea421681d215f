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
#include <sstream>
#include <string>
#include <utility>
#include <vector>

// main calls this first, before Boost starts: the place to take a snapshot. Defined by the programs that need it.
void testing_main_init();

namespace testing {

// The open descriptors of this process.
std::size_t count_descriptors();

// The children that `parent` has now, zombies too.
std::vector<pid_t> children_of(pid_t parent);

// Whether `pid` runs. A zombie does not: who reaps an orphan, and when, is not ours to say.
bool process_exists(pid_t pid);

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

// The case that is running may take so long, counted from now. Without it: 60 seconds.
// The environment's TEST_TIME_SCALE stretches every limit, this one and that of eventually().
void limit(unsigned seconds);
double time_scale();

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

// Waits until `condition()` holds, asking about once a millisecond; false if it never did.
template <class F>
bool eventually(F condition, std::chrono::milliseconds limit = std::chrono::seconds(5)) {
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::duration_cast<std::chrono::milliseconds>(limit * time_scale());
  for (;;) {
    if (condition()) return true;
    if (std::chrono::steady_clock::now() >= end) return static_cast<bool>(condition());
    ::poll(nullptr, 0, 1);
  }
}

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
