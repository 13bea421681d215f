// failing.cpp - cases that fail in every possible way: t/gates/harness.sh checks the reports.
#include "testing.hpp"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>

namespace {

void leave_a_process() {
  if (::fork() == 0)
    for (;;) ::pause();
}

}  // namespace

BOOST_AUTO_TEST_CASE(nothing_is_wrong) {
  BOOST_TEST(true);
}

BOOST_AUTO_TEST_CASE(numbers_at_random) {
  BOOST_TEST(testing::seed(17) == 18U);
}

BOOST_AUTO_TEST_CASE(a_wait_in_vain) {
  BOOST_TEST(testing::eventually([] { return false; }));
}

BOOST_AUTO_TEST_CASE(a_process_is_left) {
  leave_a_process();
  BOOST_TEST(true);
}

// ---- ends of the program ----

BOOST_AUTO_TEST_CASE(out_of_time, *boost::unit_test::disabled()) {
  leave_a_process();
  BOOST_TEST(testing::seed(17) == 18U);
  testing::limit(1);
  for (;;) ::pause();
}

BOOST_AUTO_TEST_CASE(a_crash, *boost::unit_test::disabled()) {
  leave_a_process();
  testing::seed(17);
  BOOST_TEST(1 == 2);
  ::raise(SIGSEGV);
}

BOOST_AUTO_TEST_CASE(an_exit, *boost::unit_test::disabled()) {
  leave_a_process();
  BOOST_TEST(1 == 2);
  std::exit(0);
}
