// pipe.cpp - a pipe whose last handle hangs on a callback of its own was destroyed in the middle of its
// end, when the reactor went.  AddressSanitizer sees it: --enable-audit.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <chrono>
#include <memory>

namespace par = evparallel;

void testing_main_init() {
  testing::take_default_snapshot();
}

BOOST_AUTO_TEST_CASE(the_last_handle_goes_with_its_callback) {
  const auto token = std::make_shared<int>(0);
  {
    par::Reactor loop;
    auto child = par::process(loop, [](par::Pipe<int, int>) {});
    const par::Pipe<int, int> handle = child;
    handle.on_message([handle, token](int) {});
    handle.on_end([handle, token] {});
    handle.on_error([handle, token](const par::Error&) {});
    handle.on_drain([handle, token] {});
    child.detach();
    loop.after(std::chrono::milliseconds(0), [&] { loop.stop(); }).detach();
    loop.run();  // what was put off at the start holds a handle, too
  }
  BOOST_TEST(token.use_count() == 1);
}
