// loop.cpp - a reactor that was refused a signal gave back what it had never got: the table then took the
// reactors for one another, or refused the only one that asked.
#include "testing.hpp"

#include <evparallel/reactor.hpp>

#include <csignal>
#include <stdexcept>

namespace par = evparallel;

BOOST_AUTO_TEST_CASE(what_was_refused_is_not_given_back) {
  par::Reactor first;
  par::Reactor second;
  par::Watch owner = first.on_signal(SIGUSR1, [] {});
  BOOST_CHECK_THROW(static_cast<void>(second.on_signal(SIGUSR2, [] {})), std::logic_error);
  // Still refused: the first one watches.
  BOOST_CHECK_THROW(static_cast<void>(second.on_signal(SIGUSR2, [] {})), std::logic_error);
  owner.cancel();
  par::Watch next = second.on_signal(SIGUSR2, [] {});
  BOOST_TEST(next.active());
  next.cancel();
  owner = first.on_signal(SIGUSR1, [] {});
  BOOST_TEST(owner.active());
}
