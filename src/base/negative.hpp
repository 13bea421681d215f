// negative.hpp - refuses negative times where the program passes them.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

namespace evparallel::detail {

// `name`: as in the program's source.
[[noreturn]] void throw_negative(const char* name);

// Fails: std::logic_error.
template <class Duration>
void refuse_negative(const char* name, Duration time) {
  if (time < Duration::zero()) throw_negative(name);
}

}  // namespace evparallel::detail
