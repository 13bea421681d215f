// negative.hpp - a time below zero is misuse, and refused where it is given.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

namespace evparallel {

// `name`: as the program writes it.
[[noreturn]] void throw_negative(const char* name);

// Fails: std::logic_error.
template <class Duration>
void refuse_negative(const char* name, Duration time) {
  if (time < Duration::zero()) throw_negative(name);
}

}  // namespace evparallel
