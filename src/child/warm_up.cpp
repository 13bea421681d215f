// warm_up.cpp - the warm-up of a spare child: one call, so that it has its own copies of the pages.
// Runs in: child.  Licence: see COPYING.
#include "system/failpoint.hpp"
#include "child/child.hpp"
#include "child/child_main.hpp"

#include <time.h>

#include <utility>

namespace evparallel::detail {

namespace {

// Reads one byte of each page, so that no page is touched for the first time later.  The values do
// not matter.
void prefault(Reader& addresses) {
  while (addresses.remaining() > 0) {
    const volatile char* address;
    addresses.read(&address, sizeof address);
    static_cast<void>(*address);
  }
}

// The first wake-up of a process costs more than the second one if a hypervisor keeps the page
// tables, because it updates them then.
void prewake() noexcept {
  const timespec shortest{0, 1};
  ::nanosleep(&shortest, nullptr);
}

}  // namespace

// Faults count only for what the program asks for; so do the call in the slot and the number of
// short calls.
void Child::warm_up(Reader& code) {
  const FailpointHook hook = std::exchange(failpoint_hook, nullptr);
  prefault(code);  // first: the next frame overwrites it
  Callback<void(Reader&, Writer&)> echo = [](Reader& in, Writer& out) { out.write(in.rest()); };
  Frame frame;
  if (wait_for_frame(frame) && frame.kind == FrameKind::call) take_call(frame, echo);
  slot_->call.store(0);
  short_calls_ = 0;
  write_answers();
  prewake();
  failpoint_hook = hook;
}

void warm_up(ChildInterface& child, Reader& code) {
  static_cast<Child&>(child).warm_up(code);
}

}  // namespace evparallel::detail
