// supervise.cpp - supervisors
#include "calling.hpp"
#include "testing.hpp"
#include <evparallel/evparallel.hpp>
#include <unistd.h>
namespace par = evparallel;
void testing_main_init() { testing::take_default_snapshot(); }
BOOST_AUTO_TEST_CASE(a) {
  par::Reactor loop;
  auto s = par::supervise(loop, [](unsigned) { ::pause(); }, 2);
  int exits = 0, closed = 0;
  s.on_exit([&](unsigned, const par::ExitStatus&) { ++exits; });
  s.on_closed([&] { ++closed; });
  BOOST_TEST(testing::loop_until(loop, [&] { return s.running() == 2; }));
  s.close();
  loop.run();
  BOOST_TEST(exits == 2);
  BOOST_TEST(closed == 1);
}
