// histogram.cpp - the times of a pool: percentiles of the recorded values.
#include "pool/pool_stats.hpp"
#include "private_names.hpp"
#include "testing.hpp"

#include <unistd.h>

#include <cstdint>

using evparallel::detail::Histogram;
using std::chrono::nanoseconds;

BOOST_AUTO_TEST_CASE(an_empty_histogram_has_no_percentiles) {
  const Histogram histogram;
  BOOST_TEST((histogram.percentiles().p50 == nanoseconds(0)));
  BOOST_TEST((histogram.percentiles().p99 == nanoseconds(0)));
}

BOOST_AUTO_TEST_CASE(percentiles_are_exact_to_one_eighth) {
  for (std::int64_t value = 1; value < INT64_MAX / 3; value = value * 3 / 2 + 1) {
    Histogram histogram;
    histogram.add(value);
    const std::int64_t reported = histogram.percentiles().p50.count();
    BOOST_TEST(reported >= value);
    BOOST_TEST(reported - value <= value / 8);
  }
}

BOOST_AUTO_TEST_CASE(percentiles_of_many_values_are_right) {
  Histogram histogram;
  for (int i = 1; i <= 1000; ++i) histogram.add(i * 1000);
  const evparallel::Percentiles all = histogram.percentiles();
  BOOST_TEST((all.p50 >= nanoseconds(500000) && all.p50 <= nanoseconds(562500)));
  BOOST_TEST((all.p90 >= nanoseconds(900000) && all.p90 <= nanoseconds(1012500)));
  BOOST_TEST((all.p99 >= nanoseconds(990000) && all.p99 <= nanoseconds(1113750)));
  histogram.add(5, 1000000);
  BOOST_TEST((histogram.percentiles().p99 == nanoseconds(5)));
}

BOOST_AUTO_TEST_CASE(a_negative_time_counts_as_zero) {
  Histogram histogram;
  histogram.add(-5);
  BOOST_TEST((histogram.percentiles().p50 == nanoseconds(0)));
  histogram.add(INT64_MAX, 10);
  BOOST_TEST((histogram.percentiles().p50 > nanoseconds(INT64_MAX / 2)));
}

BOOST_AUTO_TEST_CASE(the_memory_of_a_process_is_measured) {
  BOOST_TEST(evparallel::detail::own_memory(::getpid()) > 0u);
  BOOST_TEST(evparallel::detail::own_memory(-1) == 0u);
}
