// warm_up.cpp - what a spare child does before it is needed: one call, so that the pages of a call are its own.
// Runs in: child.  Licence: see COPYING.
#include "system/failpoint.hpp"
#include "child/child.hpp"
#include "child/child_main.hpp"

#include <time.h>

#include <utility>

namespace evparallel {

namespace detail {

namespace {

// What is read does not matter: the page is not touched for the first time later.
void prefault(Reader& addresses) {
  while (addresses.remaining() > 0) {
    const volatile char* place;
    addresses.read(&place, sizeof place);
    static_cast<void>(*place);
  }
}

// To be woken up for the first time is dearer than for the second one where a hypervisor keeps the
// page tables: it brings them up to date then.
void prewake() noexcept {
  const timespec shortest{0, 1};
  ::nanosleep(&shortest, nullptr);
}

}  // namespace

// Faults are for what the program asks for, and so are the call in the slot and the count of short
// calls.
void Child::warm_up(Reader& code) {
  const bool armed = std::exchange(faults.armed, false);
  prefault(code);  // first: the next frame takes its place
  Callback<void(Reader&, Writer&)> echo = [](Reader& in, Writer& out) { out.write(in.rest()); };
  Frame frame;
  if (wait_for_frame(frame) && frame.kind == FrameKind::call) take_call(frame, echo);
  slot_->call.store(0);
  short_calls_ = 0;
  write_answers();
  prewake();
  faults.armed = armed;
}

}  // namespace detail

void warm_up(detail::Child& child, Reader& code) {
  child.warm_up(code);
}

}  // namespace evparallel
