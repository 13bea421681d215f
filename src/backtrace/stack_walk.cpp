// stack_walk.cpp - walks up the stack with the unwinder that exceptions use.
// Runs in: parent, child.  Licence: see COPYING.
#include "backtrace/stack_walk.hpp"

#include <unwind.h>

namespace evparallel::detail {

namespace {

struct Walk {
  std::uintptr_t first;
  std::uintptr_t outermost;
  bool (*take)(void*, std::uintptr_t);
  void* argument;
  bool begun;
};

_Unwind_Reason_Code step(_Unwind_Context* context, void* argument) {
  Walk& walk = *static_cast<Walk*>(argument);
  const std::uintptr_t address = _Unwind_GetIP(context);
  const bool begins = !walk.begun && address == walk.first;
  walk.begun = walk.begun || walk.first == 0 || begins;
  if (!walk.begun) return _URC_NO_REASON;
  // The address of the frame's near end: the stack grows towards 0.  That of an interrupted function
  // is on the stack of the handler on some processors, arm64 for one.
  if (!begins && _Unwind_GetCFA(context) > walk.outermost) return _URC_END_OF_STACK;
  return walk.take(walk.argument, address) ? _URC_NO_REASON : _URC_END_OF_STACK;
}

}  // namespace

void walk_stack(std::uintptr_t first, const void* outermost, bool (*take)(void*, std::uintptr_t),
                void* argument) noexcept {
  Walk walk{first, reinterpret_cast<std::uintptr_t>(outermost), take, argument, false};
  _Unwind_Backtrace(step, &walk);
}

namespace {

struct Frames {
  std::uintptr_t other;
  std::uintptr_t other_end;
  std::uintptr_t end;
};

_Unwind_Reason_Code extend(_Unwind_Context* context, void* argument) {
  Frames& frames = *static_cast<Frames*>(argument);
  const std::uintptr_t frame = _Unwind_GetCFA(context);
  if (frame >= frames.other && frame < frames.other_end) return _URC_END_OF_STACK;
  if (frame < frames.end) return _URC_END_OF_STACK;
  frames.end = frame;
  return _URC_NO_REASON;
}

}  // namespace

std::uintptr_t end_of_frames(std::uintptr_t other, std::uintptr_t other_end) noexcept {
  Frames frames{other, other_end, 0};
  _Unwind_Backtrace(extend, &frames);
  return frames.end;
}

void warm_up_walks() noexcept {
  walk_stack(
      0, nullptr, [](void*, std::uintptr_t) { return false; }, nullptr);
}

}  // namespace evparallel::detail
